"""The lines of a receipt: quantity × unit price, named, and summing exactly to the total."""

from decimal import Decimal

import pytest

from pricing import parse_program
from tests.unit.pricing.programs import ADJUSTED, CHAT, GRADUATED, IMAGES, VOLUME, charge, program


def lines(priced) -> list[tuple[str, str, str, int]]:
    return [(each.name, each.quantity, each.unit_price, each.amount_microcents) for each in priced.lines]


def test_a_chat_has_a_line_for_each_charge_with_a_quantity():
    usage = {"input_tokens": 1000, "cached_input_tokens": 0, "output_tokens": 500, "mode": "thinking"}

    assert lines(parse_program(CHAT).price(usage)) == [
        ("input", "1000", "0.00000015", 15_000),
        ("output", "500", "0.0000006", 30_000),
    ]


def test_a_free_charge_has_a_line_of_zero():
    assert lines(charge('meter = "images"\nprice = 0').price({"images": 2})) == [("c", "2", "0", 0)]


def test_a_usage_of_nothing_has_no_lines():
    assert lines(charge('meter = "images"\nprice = 1').price({"images": 0})) == []


def test_graduated_tiers_have_a_line_for_each_tier():
    assert lines(charge(GRADUATED).price({"input_tokens": Decimal("5000.5")})) == [
        ("c, up to 1000", "1000", "0.003", 300_000_000),
        ("c, up to 5000", "4000", "0.002", 800_000_000),
        ("c, above 5000", "0.5", "0.001", 50_000),
    ]


def test_volume_tiers_and_cases_have_one_line_at_the_price_they_got():
    assert lines(charge(VOLUME).price({"input_tokens": 1001})) == [("c", "1001", "0.002", 200_200_000)]
    usage = {"images": 2, "size": "1024x1024", "quality": "hd"}
    assert lines(charge(IMAGES).price(usage)) == [("c", "2", "0.08", 16_000_000)]


@pytest.mark.parametrize(
    ("output_tokens", "priority", "plan", "expected"),
    [
        (8, "normal", "free", [("output", "8", "1", 8)]),
        # The unit price is the one that was charged, after the discount.
        (8, "low", "free", [("output", "8", "0.5", 4)]),
        (4, "low", "free", [("output", "4", "0.5", 2), ("minimum charge", "1", "1", 1)]),
        (0, "normal", "free", [("minimum charge", "1", "3", 3)]),
        # A maximum cuts the last lines.
        (12, "normal", "pro", [("output", "12", "1", 10)]),
    ],
)
def test_adjustments_show_on_the_receipt(output_tokens, priority, plan, expected):
    usage = {"output_tokens": output_tokens, "priority": priority, "plan": plan}
    priced = program(ADJUSTED).price(usage)

    assert [(name, quantity, each, dollars * 10**8) for name, quantity, each, dollars in expected] == lines(priced)


def test_a_maximum_cuts_from_the_end_and_no_line_is_negative():
    capped = program("""
    [[charges]]
    name = "a"
    meter = "a"
    price = 1
    [[charges]]
    name = "b"
    meter = "b"
    price = 1
    [[charges]]
    name = "c"
    meter = "c"
    price = 1
    [[adjustments]]
    name = "maximum"
    maximum = 5
    """)

    amounts = [line.amount_microcents for line in capped.price({"a": 3, "b": 4, "c": 5}).lines]

    assert amounts == [3 * 10**8, 2 * 10**8, 0]


def test_lines_move_the_rounded_running_total_so_that_they_sum_exactly():
    thirds = program(
        "".join(f'[[charges]]\nname = "{name}"\nmeter = "tokens"\nprice = 0.00000001\nper = 3\n' for name in "abcd")
    )
    priced = thirds.price({"tokens": 2})

    assert lines(priced) == [
        ("a", "2", "1/300000000", 1),
        ("b", "2", "1/300000000", 1),
        ("c", "2", "1/300000000", 0),
        ("d", "2", "1/300000000", 1),
    ]
    assert priced.total_microcents == 3


def test_quantities_are_exact_decimals_or_fractions():
    seconds = charge('meter = "audio_seconds / 3"\nprice = 3')

    assert seconds.price({"audio_seconds": Decimal("1.5")}).lines[0].quantity == "0.5"
    assert seconds.price({"audio_seconds": 1}).lines[0].quantity == "1/3"


def test_numbers_longer_than_python_likes_to_print_are_printed():
    product = " * ".join(f"k{n}" for n in range(60)) + " * 0." + "1" * 30
    huge = charge(f'meter = "{product}"\nprice = 0.000000000000000000000000000001').price(
        {f"k{n}": 10**30 - 1 for n in range(60)}
    )

    assert len(huge.lines[0].quantity) > 1800
