"""Money that customers bring: top-ups, the road they come by, and what is given back.

A top-up's life is events of the ledger; here is what begins it, and what moves it on. Providers tell of payments late,
twice and in any order: what they tell is verified, stored word for word, answered, and then booked, by rules that give
the same books whatever came first. Start reading at ``stripe_booking.py``. ``stripe_api.py`` is all that is known of
Stripe's words, ``inbox.py`` the way of a notification; ``checkouts.py`` and ``refunds.py`` are what we ask for.
``alipay_….py`` is the same road again where money moves in yuan.
"""

from payments.alipay_amounts import CreditWished, PaymentWished
from payments.alipay_api import AlipayConfig
from payments.alipay_checkouts import AlipayCheckouts
from payments.alipay_road import AlipayRoad, open_alipay
from payments.alipay_routes import AlipayRoutes
from payments.errors import (
    AmountRefused,
    Break,
    CurrencyRefused,
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
from payments.refusals import as_api_errors
from payments.routes import TopupRoutes, idempotency_key_of
from payments.stripe_api import StripeConfig
from payments.stripe_road import StripeRoad, open_stripe

__all__ = [
    "AlipayCheckouts",
    "AlipayConfig",
    "AlipayRoad",
    "AlipayRoutes",
    "AmountRefused",
    "Break",
    "CreditWished",
    "CurrencyRefused",
    "Inbox",
    "NotAtProvider",
    "NotRefundable",
    "Notification",
    "NotificationStore",
    "NotificationsAsked",
    "PaymentWished",
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
    "as_api_errors",
    "idempotency_key_of",
    "open_alipay",
    "open_stripe",
]
