"""Reconciliation from outside: ``tollgate reconcile`` beside a running demo, and the background process by itself."""

import csv
import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime, time, timedelta

import msgspec
import pytest
import pytest_asyncio

from tests.acceptance.client import Http
from tests.acceptance.running_demo import RunningDemo, place_for_demo, until

#: Over wherever one is, and never today in a test that runs at midnight.
DAY = datetime.now(UTC).date() - timedelta(days=2)
PROVIDERS = ("stripe", "usdc", "alipay")
PERIOD = ("--from", str(DAY), "--to", str(DAY + timedelta(days=1)))


@pytest_asyncio.fixture(scope="module")
async def paying_demo() -> AsyncIterator[RunningDemo]:
    async with place_for_demo() as directory:
        demo = await RunningDemo.start(directory, workers=1, flags=["--payments"])
        try:
            yield demo
            await demo.assert_books_in_order()
            assert "Traceback" not in demo.output
        finally:
            await demo.kill()


@pytest_asyncio.fixture
async def shop(paying_demo: RunningDemo, monkeypatch: pytest.MonkeyPatch) -> RunningDemo:
    for line in (paying_demo.settings_file.parent / "alipay.env").read_text().splitlines():
        monkeypatch.setenv(*line.split("=", 1))  # for the commands beside it
    monkeypatch.setenv("TOLLGATE_STRIPE_API_KEY", "sk_test_demo")
    monkeypatch.setenv("TOLLGATE_STRIPE_WEBHOOK_SECRETS", "whsec_demo")
    return paying_demo


async def test_finance_finds_a_payment_that_nobody_told_of_and_resolves_it(shop: RunningDemo) -> None:
    noon = int(datetime.combine(DAY, time(12), UTC).timestamp())
    stripe = Http(shop.information.stripe_url or "")
    clean = await shop.command("reconcile", "stripe", *PERIOD)
    await stripe.post("/_simulator/payments", {"amount": 1234, "currency": "usd", "created": noon})
    await stripe.close()

    broken = await shop.command("reconcile", "stripe", *PERIOD, "--format", "json")
    said = msgspec.json.decode(broken.out)
    (found,) = [item for item in said["items"] if item["break_id"]]
    unknown = await shop.command("reconcile", "resolve", "brk_0", "--reason", "r", "--by", "ann")
    resolved = await shop.command("reconcile", "resolve", found["break_id"], "--reason", "a gift", "--by", "ann")
    after = await shop.command("reconcile", "stripe", *PERIOD, "--format", "csv", "--output", "r.csv")
    shown = await shop.command("reconcile", "stripe", *PERIOD)

    assert (clean.status, clean.err) == (0, "")
    assert (broken.status, found["status"], found["their_amount"]) == (1, "missing_here", "12.34")
    assert (unknown.status, "brk_0" in unknown.err) == (1, True)
    assert (resolved.status, found["break_id"] in resolved.out) == (0, True)
    assert (after.status, after.out) == (0, "")
    rows = list(csv.DictReader(io.StringIO((shop.directory.home / "r.csv").read_text())))
    assert [row["reason"] for row in rows if row["break_id"]] == ["a gift"]
    assert (shown.status, "unresolved 0" in shown.out) == (0, True)


async def test_the_background_process_reconciles_yesterday_by_itself(shop: RunningDemo) -> None:
    async def done() -> bool:
        runs = (await shop.command("reconcile", "runs")).out.splitlines()
        return {run.split()[0] for run in runs if "matched" in run and "not yet" not in run} == set(PROVIDERS)

    async def shown() -> bool:
        return (
            'tollgate_reconciliation_age_seconds{provider="stripe"}' in (await shop.http.get("/metrics")).body.decode()
        )

    await until(done)
    await until(shown)


async def test_a_period_that_is_not_over_and_a_provider_that_is_not_there_are_refused_in_words(
    shop: RunningDemo, monkeypatch: pytest.MonkeyPatch
) -> None:
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    early = await shop.command("reconcile", "stripe", "--from", str(DAY), "--to", str(tomorrow))
    backwards = await shop.command("reconcile", "stripe", "--from", str(DAY), "--to", str(DAY))
    monkeypatch.delenv("TOLLGATE_STRIPE_API_KEY")
    absent = await shop.command("reconcile", "stripe", *PERIOD)

    assert (early.status, "are closed for this period at" in early.err) == (1, True)
    assert (backwards.status, "--to" in backwards.err) == (1, True)
    assert (absent.status, "not configured" in absent.err) == (1, True)
