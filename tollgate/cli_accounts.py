"""``tollgate account`` and ``token``: what operators do over HTTP, from the command line."""

import argparse
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from accounts import Operators, ServiceTokens, Tokens, account_of, open_account
from ledger import PRIORITY, AccountState, Ledger, microcents_from_cents, units_text
from ledger.reading import Balance
from tollgate.app import utc_now
from tollgate.database import connect, create_pool, database
from tollgate.settings import Settings, load_settings, server_secret

#: Who the books name for what is done here.
OPERATOR = "command line"


def add_commands(commands: Any) -> None:
    """Add this module's commands to the parser."""
    account = commands.add_parser("account", help="open, show, plan, grant, adjust").add_subparsers(required=True)
    opened = account.add_parser("open", help="open an account")
    opened.add_argument("--currency", default="USD")
    opened.set_defaults(run=_open)
    show = account.add_parser("show", help="posted, held, available, open holds")
    show.add_argument("account_id")
    show.add_argument("--as-of", type=moment, help="the balance at this moment, RFC 3339")
    show.set_defaults(run=_show)
    plan = account.add_parser("plan", help="put an account on a plan; without one on the list price")
    plan.add_argument("account_id")
    plan.add_argument("plan", nargs="?")
    plan.add_argument("--idempotency-key", default=None, help="the same key again has no second effect")
    plan.set_defaults(run=_plan)
    for name, run, about in (
        ("grant", _grant, "give credit"),
        ("adjust", _adjust, "correct the balance; a negative amount lowers it"),
    ):
        command = account.add_parser(name, help=about)
        command.add_argument("account_id")
        command.add_argument("amount_cents", type=exact_number)
        command.add_argument("reason")
        command.add_argument("--idempotency-key", default=None, help="the same key again has no second effect")
        command.set_defaults(run=run)
        if name == "grant":
            command.add_argument("--expires-at", type=moment, help="what is left then lapses, RFC 3339; default: never")
            command.add_argument("--priority", type=int, default=PRIORITY, help="0 to 100, the lowest is spent first")
    token = commands.add_parser("token", help="service tokens of operators' programs").add_subparsers(required=True)
    create = token.add_parser("create", help="make a token; its secret is shown once")
    create.add_argument("name")
    create.add_argument("--role", choices=("customer", "finance", "admin"), default="finance")
    create.set_defaults(run=_create_token)
    revoke = token.add_parser("revoke", help="end a token")
    revoke.add_argument("token_id")
    revoke.set_defaults(run=_revoke_token)


def moment(text: str) -> datetime:
    """RFC 3339; without an offset it is UTC. Raises argparse's error for anything else."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: 2027-01-01T00:00:00Z") from error


def exact_number(text: str) -> Decimal:
    """A decimal number. Raises argparse's error for anything else."""
    try:
        return Decimal(text)
    except ArithmeticError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no number") from error


@asynccontextmanager
async def open_ledger(settings: Settings) -> AsyncIterator[Ledger]:
    """The ledger for one command."""
    async with database(settings) as url:
        pool = await create_pool(url)
        ledger = await Ledger.open(pool, lambda: connect(url), utc_now)
        try:
            yield ledger
        finally:
            await ledger.close()
            await pool.close()


async def _open(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        _print(await open_account(ledger, currency=options.currency))


async def _show(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        state = await account_of(ledger, options.account_id)
        if options.as_of is not None:
            balance = await ledger.balance_as_of(state.account_id, options.as_of)
            _print_balance(state.account_id, state.currency, balance)
            return
        _print(state)
        for grant in state.grants:
            until = "" if grant.expires_at is None else f"  until {grant.expires_at:%Y-%m-%dT%H:%M:%SZ}"
            print(
                f"  grant {grant.grant_id}  {units_text(grant.left, state.currency)}  priority {grant.priority}{until}"
            )
        for hold in await ledger.open_holds(state.account_id):
            print(
                f"  hold {hold.hold_id}  {units_text(hold.held, state.currency)}  {hold.operation} {hold.model}"
                f"  since {hold.placed_at:%Y-%m-%dT%H:%M:%SZ}"
            )


async def _plan(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        committed = await Operators(ledger, clock=utc_now).change_plan(
            options.account_id,
            plan=options.plan,
            changed_by=OPERATOR,
            idempotency_key=options.idempotency_key or uuid.uuid4().hex,
        )
    print(f"{committed.account.account_id}  plan {committed.account.plan or 'none: the list price'}")


async def _grant(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        committed = await Operators(ledger, clock=utc_now).grant(
            options.account_id,
            amount=microcents_from_cents(options.amount_cents),
            reason=options.reason,
            granted_by=OPERATOR,
            idempotency_key=options.idempotency_key or uuid.uuid4().hex,
            expires_at=options.expires_at,
            priority=options.priority,
        )
        _print(committed.account)


async def _adjust(options: argparse.Namespace) -> None:
    async with open_ledger(load_settings(options.config)) as ledger:
        committed = await Operators(ledger, clock=utc_now).adjust(
            options.account_id,
            amount=microcents_from_cents(options.amount_cents),
            reason=options.reason,
            adjusted_by=OPERATOR,
            idempotency_key=options.idempotency_key or uuid.uuid4().hex,
        )
        _print(committed.account)


async def _create_token(options: argparse.Namespace) -> None:
    settings = load_settings(options.config)
    async with open_ledger(settings) as ledger:
        tokens = ServiceTokens(ledger.pool, Tokens(server_secret(settings)), clock=utc_now)
        new = await tokens.create(name=options.name, role=options.role)
    print(f"{new.token.id}  {new.secret}")


async def _revoke_token(options: argparse.Namespace) -> None:
    settings = load_settings(options.config)
    async with open_ledger(settings) as ledger:
        await ServiceTokens(ledger.pool, Tokens(server_secret(settings)), clock=utc_now).revoke(options.token_id)


def _print(account: AccountState) -> None:
    _print_balance(account.account_id, account.currency, account)


def _print_balance(account_id: str, currency: str, balance: AccountState | Balance) -> None:
    print(
        f"{account_id}  posted {units_text(balance.posted, currency)}  held {units_text(balance.held, currency)}"
        f"  available {units_text(balance.available, currency)}"
    )
