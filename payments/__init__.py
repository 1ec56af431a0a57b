"""Money that customers bring: top-ups, the road they come by, and what is given back.

A top-up's life is events of the ledger; here is what begins it, and what moves it on. Providers tell of payments late,
twice and in any order: what they tell is verified, stored word for word, answered, and then booked, by rules that give
the same books whatever came first. Start reading at ``stripe_booking.py``. ``stripe_api.py`` is all that is known of
Stripe's words, ``inbox.py`` the way of a notification; ``checkouts.py`` and ``refunds.py`` are what we ask for.
"""

from payments.errors import (
    AmountRefused,
    Break,
    NotAtProvider,
    NotRefundable,
    PaymentsError,
    PaymentsNotConfigured,
    ProviderRefused,
    ProviderUnavailable,
    TopupClosed,
    TopupNotFound,
    WebhookRefused,
)
from payments.inbox import Inbox
from payments.notifications import Notification, NotificationsAsked, NotificationStore
from payments.routes import TopupRoutes
from payments.stripe_api import StripeConfig
from payments.stripe_road import StripeRoad, open_stripe

__all__ = [
    "AmountRefused",
    "Break",
    "Inbox",
    "NotAtProvider",
    "NotRefundable",
    "Notification",
    "NotificationStore",
    "NotificationsAsked",
    "PaymentsError",
    "PaymentsNotConfigured",
    "ProviderRefused",
    "ProviderUnavailable",
    "StripeConfig",
    "StripeRoad",
    "TopupClosed",
    "TopupNotFound",
    "TopupRoutes",
    "WebhookRefused",
    "open_stripe",
]
