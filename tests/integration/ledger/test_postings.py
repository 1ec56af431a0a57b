"""Double entry: what each event posts, as journals for a bookkeeper. The trial balance is zero at every position."""

from typing import Any

import asyncpg
import pytest

from ledger import Ledger, RecordPriceEvent
from ledger.events import Event
from ledger.providers import ProviderCommand
from tests.integration.ledger.stored import broken_rules
from tests.strategies import prefixed
from tests.unit.ledger.provider_scenes import fail_payout, fee, pay_out, payout, resolve
from tests.unit.ledger.scenes import (
    adjust,
    credit,
    draw,
    expire,
    extend,
    grant,
    open_account,
    place,
    publish,
    reinstate,
    request_topup,
    rerate,
    reverse,
    settle,
    void,
)

#: What happens to an account with a credit of 100, and what the last of it posts: (ledger account, side, amount).
JOURNALS = [
    ([grant(7, "g")], [("credit_grants", "debit", 7), ("customer_available", "credit", 7)]),
    ([adjust(7)], [("adjustments", "debit", 7), ("customer_available", "credit", 7)]),
    ([adjust(-7)], [("customer_available", "debit", 7), ("adjustments", "credit", 7)]),
    ([place("h", 40)], [("customer_available", "debit", 40), ("customer_held", "credit", 40)]),
    ([place("h", 0)], []),
    ([place("h", 40), extend("h", 60)], [("customer_available", "debit", 20), ("customer_held", "credit", 20)]),
    ([place("h", 40), draw("h", 15)], [("customer_held", "debit", 15), ("revenue", "credit", 15)]),
    (
        [place("h", 40), settle("h", 25)],
        [("customer_held", "debit", 40), ("customer_available", "credit", 15), ("revenue", "credit", 25)],
    ),
    ([place("h", 40), settle("h", 40)], [("customer_held", "debit", 40), ("revenue", "credit", 40)]),
    (
        [place("h", 40), settle("h", 130)],  # 30 of it is debt
        [("customer_held", "debit", 40), ("customer_available", "debit", 90), ("revenue", "credit", 130)],
    ),
    (
        [place("h", 40), draw("h", 15), settle("h", 5)],
        [("customer_held", "debit", 25), ("customer_available", "credit", 20), ("revenue", "credit", 5)],
    ),
    ([place("h", 40), void("h")], [("customer_held", "debit", 40), ("customer_available", "credit", 40)]),
    (
        [place("h", 40), draw("h", 15), expire("h")],
        [("customer_held", "debit", 25), ("customer_available", "credit", 25)],
    ),
    (
        [place("h", 40), expire("h"), settle("h", 130)],  # 30 of it is debt
        [("customer_available", "debit", 130), ("revenue", "credit", 130)],
    ),
    (
        [place("h", 40), settle("h", 25), rerate("h", 35)],
        [("customer_available", "debit", 10), ("revenue", "credit", 10)],
    ),
    (
        [place("h", 40), settle("h", 130), rerate("h", 0)],
        [("customer_available", "credit", 130), ("revenue", "debit", 130)],
    ),
    (
        [place("h", 40), draw("h", 15), rerate("h", 20, reference="task_1")],
        [("customer_available", "debit", 5), ("revenue", "credit", 5)],
    ),
    ([request_topup()], []),
    (
        [request_topup(), credit()],
        [("processor_clearing", "debit", 100), ("customer_available", "credit", 100)],
    ),
    (
        [request_topup(), credit(), reverse(40)],
        [("customer_available", "debit", 40), ("processor_clearing", "credit", 40)],
    ),
    (
        [request_topup(), credit(), place("h", 190), reverse(100, "dispute")],  # 90 of it is debt
        [("customer_available", "debit", 100), ("processor_clearing", "credit", 100)],
    ),
    (
        [request_topup(), credit(), reverse(100, "dispute"), reinstate(30)],
        [("processor_clearing", "debit", 70), ("customer_available", "credit", 70)],
    ),
    ([publish()], []),
    ([fee(7)], [("processor_fees", "debit", 7), ("processor_clearing", "credit", 7)]),
    ([fee(-7, "txn_2")], [("processor_clearing", "debit", 7), ("processor_fees", "credit", 7)]),
    ([payout(90)], [("cash_in_transit", "debit", 90), ("processor_clearing", "credit", 90)]),
    ([payout(90), pay_out()], [("cash", "debit", 90), ("cash_in_transit", "credit", 90)]),
    (
        [payout(80, "po_2"), fail_payout("po_2")],
        [("processor_clearing", "debit", 80), ("cash_in_transit", "credit", 80)],
    ),
    (
        [payout(70, "po_3"), pay_out("po_3"), fail_payout("po_3")],
        [("processor_clearing", "debit", 70), ("cash", "credit", 70)],
    ),
    ([resolve()], []),
]


@pytest.mark.money_bug(46)
async def test_every_event_posts_its_journal_and_balances(ledger: Ledger, admin: asyncpg.Connection) -> None:
    positions = []
    for number, (commands, _) in enumerate(JOURNALS):
        for command in [open_account(), grant(100), *commands]:
            is_of_an_account = not isinstance(command, RecordPriceEvent | ProviderCommand)
            last = await ledger.submit(prefixed(command, f"{number}_") if is_of_an_account else command)
        positions.append(last.stored.position)

    posted: dict[int, list[tuple[Any, ...]]] = {position: [] for position in positions}
    for row in await admin.fetch("SELECT position, ledger_account, side, amount_microcents FROM postings"):
        posted.setdefault(row["position"], []).append(tuple(row)[1:])

    assert [sorted(journal) for _, journal in JOURNALS] == [sorted(posted[position]) for position in positions]
    assert await broken_rules(admin) == []


async def test_a_posting_rule_names_only_events_and_amounts_that_exist(admin: asyncpg.Connection) -> None:
    kinds = {kind.__struct_config__.tag: kind for kind in Event.__args__}

    rules = await admin.fetch("SELECT event_type, amount_field FROM posting_rules")

    assert all(row["amount_field"] in kinds[row["event_type"]].__struct_fields__ for row in rows_of(rules))


async def test_every_event_that_moves_money_has_posting_rules(admin: asyncpg.Connection) -> None:
    moving = {
        kind.__struct_config__.tag
        for kind in Event.__args__
        if any(name.endswith("_microcents") and "budget" not in name for name in kind.__struct_fields__)
    }

    ruled = {row["event_type"] for row in await admin.fetch("SELECT event_type FROM posting_rules")}

    assert moving - {"topup.requested", "automatic_topup.changed"} == ruled  # asked for is not paid


async def test_the_application_cannot_change_the_posting_rules(pool: asyncpg.Pool) -> None:
    for change in ("DELETE FROM posting_rules", "UPDATE posting_rules SET side = 'debit'"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await pool.execute(change)


def rows_of(records: list[asyncpg.Record]) -> list[asyncpg.Record]:
    assert records
    return records
