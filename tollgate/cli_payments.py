"""``tollgate payments``: what providers told us, told again; and refunds."""

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ledger import Microcents, microcents_from_cents, units_text
from payments import (
    DepositStore,
    Notification,
    NotificationsAsked,
    NotificationStore,
    PaymentsNotConfigured,
    Roads,
    coins,
    open_roads,
)
from tollgate.app import utc_now
from tollgate.cli_accounts import exact_number, moment, open_ledger
from tollgate.payments_config import payments_config
from tollgate.settings import load_settings

PROVIDERS = ("stripe", "alipay")
STATUSES = ("received", "processed", "ignored", "broken")
DEPOSIT_STATUSES = ("seen", "pending", "credited", "failed", "reversed", "dust")


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    payments = commands.add_parser("payments", help="notifications of providers, refunds").add_subparsers(required=True)
    listed = payments.add_parser("notifications", help="list what providers told us, and what came of it")
    listed.set_defaults(run=_list)
    replay = payments.add_parser("replay", help="process notifications again; nothing is booked twice")
    replay.set_defaults(run=_replay)
    for command in (listed, replay):
        command.add_argument("--from", dest="start", type=moment, help="RFC 3339, of the first delivery")
        command.add_argument("--to", dest="until", type=moment, help="RFC 3339, not included")
        command.add_argument("--provider", choices=PROVIDERS)
        command.add_argument("--id", help="ours, or the provider's of the event")
        command.add_argument("--status", choices=STATUSES)
    deposits = payments.add_parser("deposits", help="list what was seen of USDC on chains, newest first")
    deposits.add_argument("--status", choices=DEPOSIT_STATUSES)
    deposits.add_argument("--limit", type=int, default=100)
    deposits.set_defaults(run=_deposits)
    refund = payments.add_parser("refund", help="give back what was paid and is neither held nor spent")
    refund.add_argument("topup_id", metavar="TOPUP")
    refund.add_argument("--amount", dest="amount_cents", metavar="CENTS", type=exact_number, help="default: all of it")
    refund.add_argument("--reason", required=True, help="why; in the books, and at the provider")
    refund.add_argument("--idempotency-key", default=None, help="the same key again has no second effect")
    refund.set_defaults(run=_refund)


async def _list(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        async for notification in NotificationStore(ledger.pool).asked(_asked(options)):
            _print(notification)


async def _deposits(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        for deposit in await DepositStore(ledger.pool).all(options.status, options.limit):
            problem = "" if deposit.problem is None else f"  ({deposit.problem})"
            gone = "" if deposit.gone_at_block is None else "  (its block has left the chain)"
            print(
                f"{deposit.seen_at:%Y-%m-%dT%H:%M:%SZ}  {deposit.payment_id}  {deposit.account_id}"
                f"  {coins(deposit.transfer.units):f} USDC  block {deposit.transfer.block_number}"
                f"  {deposit.status}{gone}{problem}"
            )


async def _replay(options: argparse.Namespace) -> int:
    not_done = 0
    async with _roads(options) as roads:
        if not roads.inboxes or options.provider not in (None, *roads.inboxes):
            raise PaymentsNotConfigured(options.provider or " or ".join(PROVIDERS))
        for inbox in roads.inboxes.values():
            async for notification in inbox.replay(_asked(options)):
                _print(notification)
                not_done += notification.status in ("received", "broken")
    return 1 if not_done else 0


async def _refund(options: argparse.Namespace) -> None:
    amount: Microcents | None = None
    if options.amount_cents is not None:
        amount = microcents_from_cents(options.amount_cents)
    async with _roads(options) as roads:
        if roads.stripe is None:
            raise PaymentsNotConfigured("stripe")
        topup, given_back = await roads.stripe.refunds.refund(
            options.topup_id, amount=amount, reason=options.reason, idempotency_key=options.idempotency_key
        )
    currency = topup.asked_currency
    print(
        f"{topup.topup_id}  refunded {units_text(given_back, currency)}  "
        f"{units_text(topup.reversed, currency)} of {units_text(topup.amount, currency)} in all"
    )


@asynccontextmanager
async def _roads(options: argparse.Namespace) -> AsyncIterator[Roads]:
    settings = load_settings(options.config)
    config = payments_config(settings)
    async with open_ledger(settings) as ledger, open_roads(config, ledger, utc_now) as roads:
        yield roads


def _asked(options: argparse.Namespace) -> NotificationsAsked:
    return NotificationsAsked(
        start=options.start,
        until=options.until,
        provider=options.provider,
        id=options.id,
        status=options.status,
    )


def _print(notification: Notification) -> None:
    print(
        f"{notification.received_at:%Y-%m-%dT%H:%M:%SZ}  {notification.id}  {notification.event_id}"
        f"  {notification.event_type}  {notification.status}  {notification.outcome or 'not processed yet'}"
        f"  (delivered {notification.deliveries} times)"
    )
