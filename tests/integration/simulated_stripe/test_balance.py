"""The simulation's balance is what Stripe's own library takes for one: movements, fees, payouts, pages."""

import pytest
import stripe

from .conftest import Shop


async def transactions(shop: Shop, **asked: object) -> list[stripe.BalanceTransaction]:
    listed = await shop.client.v1.balance_transactions.list_async(asked)  # type: ignore[arg-type]
    return list(listed.data)


async def test_what_moves_money_is_a_transaction_with_its_fee_and_its_source(shop: Shop) -> None:
    charge = (await shop.paid(2000)).latest_charge
    refund = await shop.client.v1.refunds.create_async({"charge": str(charge), "amount": 500})
    dispute = await shop.play(f"charges/{(await shop.paid(1000)).latest_charge}/dispute")
    await shop.play(f"disputes/{dispute['id']}/close", status="won")
    await shop.play("stripe_fees", amount=70)

    found = await transactions(shop, expand=["data.source"])

    assert [(each.reporting_category, each.amount, each.fee) for each in found] == [
        ("fee", -70, 0),
        ("dispute_reversal", 1000, -1500),
        ("dispute", -1000, 1500),
        ("charge", 1000, 59),
        ("refund", -500, 0),
        ("charge", 2000, 88),
    ]
    assert all(each.net == each.amount - each.fee for each in found)
    assert all(each.available_on > each.created for each in found)
    assert (found[-1].source.id, found[-2].source.id) == (charge, refund.id)  # type: ignore[union-attr]
    assert found[-1].source.payment_intent.startswith("pi_")  # type: ignore[union-attr]


async def test_a_list_has_pages_and_filters(shop: Shop) -> None:
    for cents in range(1, 8):
        await shop.play("stripe_fees", amount=cents)
    everything = await transactions(shop)
    created = everything[0].created

    first = await shop.client.v1.balance_transactions.list_async({"limit": 3})
    rest = await transactions(shop, limit=100, starting_after=first.data[-1].id)

    assert first.has_more
    assert [each.id for each in (*first.data, *rest)] == [each.id for each in everything]
    assert await transactions(shop, created={"lt": everything[-1].created}) == []
    assert len(await transactions(shop, created={"gte": everything[-1].created, "lt": created + 1})) == 7
    assert await transactions(shop, type="charge") == []


@pytest.mark.parametrize("fails", [False, True])
async def test_a_payout_takes_all_that_is_there_and_is_told_of(shop: Shop, fails: bool) -> None:
    await shop.paid(1000)
    payout = await shop.play("payouts", currency="usd")
    await shop.play(f"payouts/{payout['id']}/arrive")
    if fails:
        await shop.play(f"payouts/{payout['id']}/fail")

    now = await shop.client.v1.payouts.retrieve_async(payout["id"])
    told = [event for event in await shop.events() if event.startswith("payout.")]
    paid_out = await transactions(shop, payout=payout["id"])

    assert (now.amount, now.status) == (1000 - 59, "failed" if fails else "paid")
    assert told == ["payout.created", "payout.paid", "payout.reconciliation_completed", *["payout.failed"] * fails]
    assert [each.amount for each in paid_out] == ([] if fails else [1000])
    assert sum(each.net for each in await transactions(shop)) == (941 if fails else 0)
