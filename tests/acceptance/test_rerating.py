"""A wrong price put right from outside: shown by the command line, applied, and seen by the customer."""

import csv
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib import resources
from pathlib import Path

from tests.acceptance.customers import MODEL, Customer
from tests.acceptance.prices import price_of_usage
from tests.acceptance.running_demo import until

LIST_PRICE = resources.files("tollgate").joinpath("demo_prices", f"{MODEL}.toml").read_text()
#: Twice the list price: whole microcents again.
DOUBLE = LIST_PRICE.replace(f'id = "{MODEL}"', 'id = "double"') + '\n[[adjustments]]\nname = "double"\nfactor = 2\n'


async def test_a_customer_who_paid_half_is_charged_the_rest_and_sees_it(customer: Customer, tmp_path: Path) -> None:
    demo = customer.demo
    answers = [await customer.chat(max_tokens=tokens) for tokens in (3, 8)]
    paid = sum((price_of_usage(MODEL, answer.json["usage"]) for answer in answers), Decimal(0))
    await customer.usage_logs(2)
    file, sums = tmp_path / "double.toml", tmp_path / "sums.csv"
    file.write_text(DOUBLE)
    now = datetime.now(UTC)
    start, until_ = ((now + timedelta(days=days)).isoformat() for days in (-1, 1))
    backtest = await demo.command(
        *("prices", "backtest", str(file), "--model", MODEL, "--from", start, "--to", until_),
        *("--account", customer.account_id, "--csv", str(sums)),
    )
    published = await demo.command("prices", "publish", str(file))
    rerate = (
        *("prices", "rerate", f"{MODEL}@1", "--to", "double@1", "--from", start, "--to-time", until_),
        *("--account", customer.account_id),
    )

    shown = await demo.command(*rerate)
    before = await customer.balance()
    applied = await demo.command(*rerate, "--apply", "--reason", "half the price")
    again = await demo.command(*rerate, "--apply", "--reason", "half the price")

    assert [done.status for done in (backtest, published, shown, applied, again)] == [0] * 5
    total = next(row for row in csv.DictReader(sums.open()) if row["view"] == "total")
    assert (Decimal(total["before"]), Decimal(total["after"])) == (paid / 100, paid / 50)
    assert "corrected 2 charges" in applied.out
    assert "corrected 0 charges" in again.out
    assert await customer.balance() == before - paid
    assert (await customer.event_types())[-2:] == ["charge.rerated"] * 2

    async def corrected() -> bool:
        return sum((Decimal(line["cost_cents"]) for line in await customer.usage_logs(2)), Decimal(0)) == 2 * paid

    await until(corrected)
    summary = await customer.get("/v1/usage/summary")
    assert (summary.json["total_requests"], Decimal(summary.json["total_cost_cents"])) == (2, 2 * paid)
