"""``tollgate prices rerate``: what a wrong version charged, corrected to what the right one charges."""

import argparse
import getpass
from typing import Any

from rich.console import Console
from rich.table import Table

from ledger import Microcents, units_text
from ledger.charges import ChargesAsked
from pricing.publishing import read_price_book
from pricing.rerating import Leftovers, Rerating, carry_out
from tollgate.cli_accounts import moment
from tollgate.cli_price_book import version_named
from tollgate.past_charges import opened, read_charges


def add_commands(prices: Any) -> None:
    """Add this module's command to ``tollgate prices``."""
    rerate = prices.add_parser("rerate", help="charge usage by another version than the wrong one that charged it")
    rerate.add_argument("wrong", metavar="PROGRAM@VERSION", type=version_named)
    rerate.add_argument("--to", dest="right", metavar="PROGRAM@VERSION", type=version_named, required=True)
    rerate.add_argument("--from", dest="start", type=moment, required=True, help="RFC 3339, of the charge")
    rerate.add_argument("--account")
    rerate.add_argument("--to-time", dest="until", type=moment, required=True, help="RFC 3339, not included")
    rerate.add_argument("--apply", action="store_true", help="post the corrections; without it they are only shown")
    rerate.add_argument("--plan", help="apply only if the plan is still the one of this id")
    rerate.add_argument("--reason", help="why; on every correction")
    rerate.add_argument("--by", help="who does it (default: you)")
    rerate.set_defaults(run=_rerate)


async def _rerate(options: argparse.Namespace) -> int:
    if options.apply and not options.reason:
        raise ValueError("--apply needs a --reason: it is written on every correction")
    async with opened(options) as (ledger, connection):
        book = await read_price_book(ledger)
        wrong, right = (book.program(*version) for version in (options.wrong, options.right))
        asked = ChargesAsked(
            start=options.start, until=options.until, account_id=options.account, priced_by=options.wrong
        )
        rerating = Rerating(wrong.ref, right, book)
        async for batch in read_charges(connection, asked):
            rerating.add(batch)
        _show_rerating(Console(), rerating)
        if options.plan is not None and options.plan != rerating.digest:
            raise ValueError(f"the plan is {rerating.digest} by now, not {options.plan}: look again")
        if not options.apply:
            return 0
        refused = Leftovers()
        corrected = 0
        async for batch in read_charges(connection, asked):
            corrected += await carry_out(
                ledger,
                rerating.to_correct(batch),
                right.ref,
                reason=options.reason,
                rerated_by=options.by or getpass.getuser(),
                refused=refused,
            )
    print(f"corrected {corrected} charges by plan {rerating.digest}")
    _show_left("refused", refused)
    return 1 if refused.by_reason else 0


def _show_rerating(console: Console, rerating: Rerating) -> None:
    table = Table(title="what the re-rating does", title_justify="left")
    table.add_column("account", overflow="fold")
    for column in ("charges", "corrected", "to correct", "before", "after", "difference"):
        table.add_column(column, justify="right")
    for account, effect in sorted(rerating.effects.items()):
        amounts = (effect.before, effect.after, effect.after - effect.before)
        table.add_row(
            account,
            *(f"{count:,}" for count in (effect.charges, effect.corrected, effect.to_correct)),
            *(units_text(Microcents(amount), effect.currency) for amount in amounts),
        )
    console.print(table)
    _show_left("not corrected", rerating.left)
    print(f"plan {rerating.digest}")


def _show_left(what: str, left: Leftovers) -> None:
    for (account, reason), some in left.by_reason.items():
        print(f"{what}: {some.charges} of {account}: {reason} (hold {some.example})")
