"""Money that customers bring: top-ups, the roads they come by, and what is given back.

A top-up's life is events of the ledger; here is what begins it, and what moves it on. Providers tell of payments late,
twice and in any order: what they tell is verified, stored word for word, answered, and then booked, by rules that give
the same books whatever came first. ``inbox.py`` is the way of a notification, ``roads.py`` what is open. Each provider
has a package with the same parts: ``api.py`` is all that is known of its words, ``checkouts.py`` what we ask for,
``booking.py`` what is made of what it tells, ``statement.py`` what its own books say, which ``reconciliation`` holds
against ours. Start reading at ``stripe/booking.py``.
"""

from payments.alipay.amounts import CreditWished, PaymentWished
from payments.alipay.api import AlipayConfig
from payments.alipay.checkouts import AlipayCheckouts
from payments.alipay.road import AlipayRoad, open_alipay
from payments.alipay.routes import AlipayRoutes
from payments.errors import (
    AddressesUsedUp,
    AmountRefused,
    Break,
    BreakNotFound,
    CredentialsRefused,
    CurrencyRefused,
    NoSavedCard,
    NotAtProvider,
    NotRefundable,
    PaymentsError,
    PaymentsNotConfigured,
    PeriodNotOver,
    ProviderRefused,
    ProviderUnavailable,
    TopupClosed,
    TopupNotFound,
    WebhookRefused,
)
from payments.inbox import Inbox
from payments.notifications import Notification, NotificationsAsked, NotificationStore
from payments.refusals import as_api_errors
from payments.roads import PaymentsConfig, Roads, open_roads
from payments.routes import TopupRoutes, idempotency_key_of
from payments.stripe.api import StripeConfig
from payments.stripe.automatic import AutomaticTopups
from payments.stripe.road import StripeRoad, open_stripe
from payments.stripe.routes import stripe_routes
from payments.usdc.addresses import DepositKey, checksummed
from payments.usdc.amounts import coins
from payments.usdc.config import Chain, UsdcConfig
from payments.usdc.deposits import Deposit, DepositStore
from payments.usdc.road import UsdcRoad, usdc_road
from payments.usdc.routes import UsdcRoutes

__all__ = [
    "AddressesUsedUp",
    "AlipayCheckouts",
    "AlipayConfig",
    "AlipayRoad",
    "AlipayRoutes",
    "AmountRefused",
    "AutomaticTopups",
    "Break",
    "BreakNotFound",
    "Chain",
    "CredentialsRefused",
    "CreditWished",
    "CurrencyRefused",
    "Deposit",
    "DepositKey",
    "DepositStore",
    "Inbox",
    "NoSavedCard",
    "NotAtProvider",
    "NotRefundable",
    "Notification",
    "NotificationStore",
    "NotificationsAsked",
    "PaymentWished",
    "PaymentsConfig",
    "PaymentsError",
    "PaymentsNotConfigured",
    "PeriodNotOver",
    "ProviderRefused",
    "ProviderUnavailable",
    "Roads",
    "StripeConfig",
    "StripeRoad",
    "TopupClosed",
    "TopupNotFound",
    "TopupRoutes",
    "UsdcConfig",
    "UsdcRoad",
    "UsdcRoutes",
    "WebhookRefused",
    "as_api_errors",
    "checksummed",
    "coins",
    "idempotency_key_of",
    "open_alipay",
    "open_roads",
    "open_stripe",
    "stripe_routes",
    "usdc_road",
]
