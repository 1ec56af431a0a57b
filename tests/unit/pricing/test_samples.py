"""Where prices change, and the usages that show it."""

from decimal import Decimal

import pytest

from pricing import parse_program
from pricing.samples import MAX_VALUES, edges, sample_usages
from tests.unit.pricing.programs import CHAT, GRADUATED, VOLUME, charge, program

PRICED = 'meter = "pages"\nprice = 1\n'
TIERS = "tiers = [{ up_to = 10, price = 2 }, { price = 1 }]\n"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (PRICED, {}),
        (VOLUME, {"input_tokens": [1000, 5000]}),
        (GRADUATED, {"input_tokens": [1000, 5000]}),
        (f'meter = "a"\nfree = 3\ntiering = "graduated"\n{TIERS}', {"a": [13]}),
        (f'meter = "a"\nfree = 3\ntiering = "volume"\ntier_by = "b"\n{TIERS}', {"b": [10]}),
        # Where the other key is at zero; for the part that is taken off, the edge lies below zero.
        (f'meter = "a - b"\ntiering = "volume"\n{TIERS}', {"a": [10], "b": []}),
        (f'meter = "a / 4 + 1"\ntiering = "volume"\n{TIERS}', {"a": [36]}),
        (PRICED + 'when = "hour >= 22 or hour < 6"', {"hour": [6, 22]}),
        (PRICED + 'when = "2 * a > 3"', {"a": [Decimal("1.5")]}),
        (PRICED + 'when = "3 * a > 1"', {"a": []}),
        (PRICED + 'when = "a > a"', {}),
    ],
)
def test_an_edge_is_where_a_tier_ends_or_a_condition_turns(body, expected):
    assert edges(charge(body).definition) == expected


def test_samples_stand_on_both_sides_of_every_edge_and_beside_their_wholes():
    usages = list(sample_usages(parse_program(CHAT).definition, charge(VOLUME).definition))

    assert {1, 1000, 1001, 5000, 5001, 1_000_000} <= {usage["input_tokens"] for usage in usages}
    assert {usage["mode"] for usage in usages} == {"thinking", "normal"}
    assert any(0 < usage["input_tokens"] == usage["cached_input_tokens"] > usage["output_tokens"] for usage in usages)


def test_an_open_text_is_sampled_with_each_text_told_apart_and_one_other():
    fast = charge(PRICED + "when = \"mode == 'fast' or express\"").definition

    assert {(usage["mode"], usage["express"]) for usage in sample_usages(fast)} == {
        ("fast", False), ("fast", True), ("another than fast", False), ("another than fast", True),
    }  # fmt: skip


def test_however_many_keys_there_are_the_samples_come_to_an_end():
    conditions = " or ".join(f"f{n}" for n in range(60))
    body = "".join(f'[[charges]]\nname = "{n}"\nmeter = "k{n}"\nprice = 1\n' for n in range(200))
    many = program(f'{body}when = "{conditions}"\n')

    assert sum(map(len, sample_usages(many.definition))) == MAX_VALUES // 260 * 260
