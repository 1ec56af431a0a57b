"""The example of docs/backtesting.md, from the programs in it to every row of its tables, on the command line."""

import asyncio
import csv
import re
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import pytest

from ledger import GrantCredit, Ledger, OpenAccount, PlaceHold, SettleHold
from ledger.events import ProgramAssigned
from pricing import PricedProgram
from pricing.publishing import assign, publish, read_price_book
from projections import ProjectionRunner, check_books
from tests.conftest import Clock

DOCUMENT = (Path(__file__).parents[3] / "docs" / "backtesting.md").read_text()
IN_FORCE, CANDIDATE = re.findall(r"```toml\n(.*?)```", DOCUMENT, re.DOTALL)
WRONG = IN_FORCE.replace("0.15", "0.015").replace("0.60", "0.80")
#: Account, requests, input tokens and output tokens of each.
USED = [("acct_reader", 3, 40_000, 1_000), ("acct_writer", 2, 1_000, 8_000)]
PERIOD = ("--from", "2026-11-01", "--to", "2026-12-01")

Tollgate = Callable[..., Awaitable[str]]


@pytest.fixture
def tollgate(database_url: str) -> Tollgate:
    """Runs ``tollgate …`` on this test's database; returns what it prints and its status."""

    async def run(*arguments: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tollgate.cli", *arguments),
            env={"TOLLGATE_DATABASE_URL": database_url, "COLUMNS": "200", "PATH": "/usr/bin"},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        return f"{out.decode()}{err.decode() if process.returncode else ''}status {process.returncode}"

    return run


async def use(ledger: Ledger, priced: PricedProgram, *, credit: dict[str, int]) -> None:
    """Every request of the example, charged by the program."""
    for account, requests, input_tokens, output_tokens in USED:
        await ledger.submit(OpenAccount(stream_id=account, currency="USD"))
        await pay_in(ledger, account, credit[account])
        usage = {"input_tokens": input_tokens, "output_tokens": output_tokens}
        amount = priced.charge(usage)
        for number in range(requests):
            hold_id = f"hold_{account}_{number}"
            await ledger.submit(
                PlaceHold(
                    stream_id=account,
                    hold_id=hold_id,
                    amount_microcents=amount,
                    operation="chat.completions",
                    model="qwen3-32b",
                    price=priced.ref,
                    worker_id=1,
                    lifetime_s=60,
                )
            )
            await ledger.submit(SettleHold(stream_id=account, hold_id=hold_id, amount_microcents=amount, usage=usage))


async def pay_in(ledger: Ledger, account: str, amount: int) -> None:
    await ledger.submit(
        GrantCredit(
            stream_id=account, amount_microcents=amount, reason="r", granted_by="u", idempotency_key=str(amount)
        )
    )


async def version(ledger: Ledger, text: str) -> PricedProgram:
    published = await publish(ledger, text, published_by="anna", confirmed=True)
    return (await read_price_book(ledger)).program(published.program, published.version)


def in_document(*cells: object) -> bool:
    return f"| {' | '.join(map(str, cells))} |".replace("|  |", "| |") in DOCUMENT


async def test_a_backtest_gives_the_numbers_of_the_document(
    ledger: Ledger, clock: Clock, tollgate: Tollgate, tmp_path: Path
) -> None:
    priced = await version(ledger, IN_FORCE)
    await assign(
        ledger,
        ProgramAssigned(program="qwen3-32b", version=1, model="qwen3-32b", effective_from=clock(), assigned_by="anna"),
        now=clock(),
    )
    await use(ledger, priced, credit={"acct_reader": 10_000_000, "acct_writer": 10_000_000})
    (tmp_path / "new.toml").write_text(CANDIDATE)

    files = ("--csv", str(tmp_path / "sums.csv"), "--chart", str(tmp_path / "revenue.svg"))
    out = await tollgate("prices", "backtest", str(tmp_path / "new.toml"), *PERIOD, *files)

    rows = list(csv.DictReader((tmp_path / "sums.csv").open()))
    documented = [row for row in rows if row["view"] in ("total", "account")]
    assert "status 0" in out
    assert len(documented) == 3
    for row in documented:
        cells = [row[name] for name in ("view", "name", "usages", "before", "after", "difference")]
        assert in_document(*cells), cells
    assert [(row["view"], row["name"]) for row in rows[3:]] == [("model", "qwen3-32b"), ("day", "2026-11-21")]
    assert "accounts that pay more: 1" in out
    assert "acct_writer" in (tmp_path / "revenue.svg").read_text()


async def test_a_backtest_of_a_program_without_a_model_asks_for_one(tollgate: Tollgate, tmp_path: Path) -> None:
    (tmp_path / "new.toml").write_text(CANDIDATE)

    backtest = ("prices", "backtest", str(tmp_path / "new.toml"))

    out = await tollgate(*backtest, *PERIOD)
    with_model = await tollgate(*backtest, *PERIOD, "--model", "m")
    empty = await tollgate(*backtest, "--from", "2026-11-02", "--to", "2026-11-01")

    assert out == "tollgate: qwen3-32b was never assigned to a model: say --model\nstatus 1"
    assert with_model == "no usage\nstatus 0"
    assert empty == "tollgate: the period is empty: --from is not before its end\nstatus 1"


async def test_a_re_rating_gives_the_numbers_of_the_document_and_can_be_done_again(
    ledger: Ledger, admin: asyncpg.Connection, clock: Clock, tollgate: Tollgate
) -> None:
    clock.now = datetime(2026, 11, 7, 12, tzinfo=UTC)
    await version(ledger, IN_FORCE)
    wrong = await version(ledger, WRONG)
    await version(ledger, IN_FORCE)
    # What is left to the reader: 0.006.
    await use(ledger, wrong, credit={"acct_reader": 420_000 + 600_000, "acct_writer": 10_000_000})
    period = ("--from", "2026-11-07", "--to-time", "2026-11-08")
    rerate = ("prices", "rerate", "qwen3-32b@2", "--to", "qwen3-32b@3", *period)

    shown = await tollgate(*rerate)
    plan = re.findall(r"plan (\w+)", shown)[0]
    before = await admin.fetchval("SELECT max(position) FROM events")
    unexplained = await tollgate(*rerate, "--apply")
    outdated = await tollgate(*rerate, "--apply", "--reason", "r", "--plan", "0123456789abcdef")
    untouched = await admin.fetchval("SELECT max(position) FROM events")
    applied = await tollgate(*rerate, "--apply", "--reason", "r", "--plan", plan, "--by", "anna")
    await pay_in(ledger, "acct_reader", 10**9)
    finished = await tollgate(*rerate, "--apply", "--reason", "r", "--plan", plan)
    after = await admin.fetchval("SELECT max(position) FROM events")
    again = await tollgate(*rerate, "--apply", "--reason", "r", "--plan", plan)

    assert unexplained.startswith("tollgate: --apply needs a --reason")
    assert f"the plan is {plan} by now, not 0123456789abcdef" in outdated
    for cells in rows_of(shown):
        account, charges, _, _, *amounts = cells
        assert in_document(account, charges, *(amount.removesuffix(" USD") for amount in amounts)), cells
    assert "not corrected: 2 of acct_reader: the free balance does not cover it (hold hold_acct_reader_1)" in shown
    assert f"corrected 3 charges by plan {plan}" in applied
    assert "refused: 2 of acct_reader: the free balance does not cover it" in applied
    assert "status 1" in applied
    assert f"corrected 2 charges by plan {plan}" in finished
    assert f"corrected 0 charges by plan {plan}\nstatus 0" in again
    assert (untouched, after) == (before, before + 3 + 1 + 2)
    assert after == await admin.fetchval("SELECT max(position) FROM events")
    await ProjectionRunner(ledger.pool).catch_up()
    days = await admin.fetch("SELECT account_id, cost_microcents FROM usage_daily ORDER BY account_id")
    assert [tuple(row) for row in days] == [("acct_reader", 1_980_000), ("acct_writer", 990_000)]
    assert [str(finding) async for finding in check_books(admin)] == []


def rows_of(shown: str) -> list[list[str]]:
    rows = [[cell.strip() for cell in re.split("[│┃]", line)[1:-1]] for line in shown.splitlines() if "acct_" in line]
    rows = [row for row in rows if len(row) == 7]
    assert len(rows) == 2
    return rows
