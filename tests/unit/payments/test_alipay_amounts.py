"""Yuan for credit and back: nobody is credited more than was paid for, and no refund takes more than it gave back."""

from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import Microcents, Paid, TopupState
from ledger.money import MICROCENTS_PER_CENT
from payments import AmountRefused, CreditWished, PaymentWished
from payments.alipay.amounts import Offer, taken_back

rates = st.none() | st.decimals("0.000001", "1000000", places=6)
fens = st.integers(1, 10**11)


def topup(offer: Offer) -> TopupState:
    return TopupState(
        topup_id="topup_1",
        account_id="acct_1",
        provider="alipay",
        status="credited",
        amount=offer.amount,
        asked_currency=offer.asked.currency,
        asked_amount=offer.asked.amount,
        requested_by="user_1",
        requested_at=datetime(2026, 1, 1, tzinfo=UTC),
    )


def worth(asked: Paid, rate: Decimal | None) -> Fraction:
    """What it is in microcents of the account, exact."""
    return Fraction(asked.amount) * 100 * MICROCENTS_PER_CENT * (1 if rate is None else Fraction(rate))


@pytest.mark.parametrize(
    ("wish", "rate", "amount_cents", "asked"),
    [
        (CreditWished(Microcents(1_000_000_000)), None, 1000, "10.00"),
        (CreditWished(Microcents(1_000_000_000)), "0.14", 1000, "71.43"),  # 71.428…
        (CreditWished(Microcents(700_000_000)), "0.14", 700, "50.00"),  # to the fen
        (PaymentWished(10_000), None, 10_000, "100.00"),
        (PaymentWished(10_000), "0.14", 1400, "100.00"),
        (PaymentWished(1), "0.1234567", "0.123456", "0.01"),  # the microcent below
    ],
)
def test_amounts_at_rates_that_a_bookkeeper_can_check(
    wish: CreditWished | PaymentWished, rate: str | None, amount_cents: int | str, asked: str
) -> None:
    offer = wish.at(None if rate is None else Decimal(rate))

    assert offer.amount == Decimal(amount_cents) * MICROCENTS_PER_CENT
    assert offer.asked == Paid("CNY", Decimal(asked))


@given(st.integers(1, 10**17), rates.filter(lambda rate: rate is not None))
def test_who_wishes_credit_pays_for_it_and_less_than_a_fen_more(amount: int, rate: Decimal) -> None:
    offer = CreditWished(Microcents(amount)).at(rate)

    assert offer.amount == amount
    assert 0 <= worth(offer.asked, rate) - amount < worth(Paid("CNY", Decimal("0.01")), rate)


@given(fens, rates)
def test_who_pays_is_credited_what_it_is_worth_and_less_than_a_microcent_less(fen: int, rate: Decimal | None) -> None:
    offer = PaymentWished(fen).at(rate)

    assert offer.asked.amount * 100 == fen
    assert 0 <= worth(offer.asked, rate) - offer.amount < 1


@given(fens, rates, st.data())
def test_a_refund_takes_back_its_share_and_a_whole_one_everything(
    fen: int, rate: Decimal | None, data: st.DataObject
) -> None:
    paid = topup(PaymentWished(fen).at(rate))
    refunded = data.draw(st.integers(0, fen))

    taken = taken_back(paid, Decimal(f"{refunded}E-2"))

    assert 0 <= Fraction(paid.amount * refunded, fen) - taken < 1
    assert taken_back(paid, paid.asked_amount) == paid.amount


def test_an_account_in_yuan_gets_no_part_of_a_fen() -> None:
    with pytest.raises(AmountRefused):
        CreditWished(Microcents(1_000_000_001)).at(None)


@pytest.mark.parametrize(("amount", "fen"), [("0.01", 1), ("100", 10_000), ("100.50", 10_050), ("1E+2", 10_000)])
def test_yuan_are_whole_fen(amount: str, fen: int) -> None:
    assert PaymentWished.of(Decimal(amount)) == PaymentWished(fen)


@pytest.mark.parametrize(
    "amount", ["0", "-1", "0.001", "1.001", "NaN", "sNaN", "Infinity", "1E+999999", "1E-999999", "1000000000.01"]
)
def test_what_nobody_can_be_asked_for_is_refused(amount: str) -> None:
    with pytest.raises(AmountRefused):
        PaymentWished.of(Decimal(amount))
