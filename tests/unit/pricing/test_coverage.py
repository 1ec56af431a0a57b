"""What a program refuses is found before it is served."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import Span, UsageError, parse_program
from pricing.coverage import coverage_of
from pricing.errors import PartAboveWhole

HEAD = 'id = "p"\ncurrency = "USD"\n'
OUTPUT = '[[charges]]\nname = "o"\nmeter = "output_tokens"\n'
RANGES = (
    HEAD
    + OUTPUT
    + (
        'prices = [{ when = "input_tokens > 0 and input_tokens <= 32", price = 1 },'
        ' { when = "input_tokens > 32 and input_tokens <= 128", price = 2 }]\n'
    )
)
TIERS = HEAD + OUTPUT + 'tiering = "volume"\ntier_by = "input_tokens"\ntiers = [{ up_to = 32, price = 1 }]\n'
MODES = (
    HEAD
    + '[values]\nmode = ["normal"]\n'
    + OUTPUT
    + ("prices = [{ when = \"mode == 'normal'\", price = 1 }, { price = 2 }]\n")
)
PARTS = (
    HEAD
    + '[values]\nsize = ["s"]\n[defaults]\nsize = "s"\n'
    + (
        '[[charges]]\nname = "i"\nmeter = "input_tokens - cached_input_tokens"\nprice = 1\n'
        '[[charges]]\nname = "s"\nmeter = "output_tokens"\nprice = 1\nwhen = "size == \'s\'"\n'
    )
)


def gap(text: str, **box: Any) -> UsageError | None:
    return coverage_of(parse_program(text)).gap(box)


@pytest.mark.parametrize(
    ("text", "box", "key"),
    [
        (RANGES, {"input_tokens": Span(1, 128)}, None),
        (RANGES, {"input_tokens": Span(0, 128)}, "input_tokens"),
        (RANGES, {"input_tokens": Span(1, 129)}, "input_tokens"),
        (RANGES, {"input_tokens": Span(1, 10_000)}, "input_tokens"),
        (TIERS, {"input_tokens": Span(0, 32)}, None),
        (TIERS, {"input_tokens": Span(0, 33)}, "input_tokens"),
        (MODES, {"mode": "normal"}, None),
        (MODES, {"mode": frozenset({"normal"})}, None),
        (MODES, {"mode": frozenset({"normal", "thinking"})}, "mode"),
        (PARTS, {"input_tokens": Span(0, 10), "cached_input_tokens": Span(0, 10)}, None),
        (PARTS, {"input_tokens": 1, "cached_input_tokens": 0, "size": frozenset({"s", "l"})}, "size"),
    ],
)
def test_a_usage_of_the_box_that_is_refused_is_found_and_a_part_above_its_whole_is_none(
    text: str, box: dict[str, Any], key: str | None
) -> None:
    found = gap(text, output_tokens=Span(0, 200), **box)

    assert (found is None) == (key is None)
    assert found is None or str(key) in found.key


tiers = st.lists(st.integers(1, 40), min_size=1, max_size=4, unique=True).map(sorted)


@given(tiers, st.booleans(), st.integers(0, 60), st.integers(0, 60), st.data())
def test_where_no_gap_is_found_every_usage_of_the_box_has_a_price(
    ends: list[int], is_open: bool, low: int, more: int, data: st.DataObject
) -> None:
    cases = [f'{{ when = "input_tokens <= {end}", price = {end} }}' for end in ends] + ["{ price = 1 }"] * is_open
    program = parse_program(HEAD + OUTPUT + f"prices = [{', '.join(cases)}]\n")
    box = {"input_tokens": Span(low, low + more), "output_tokens": Span(0, 5)}

    found = coverage_of(program).gap(box)

    assert (found is None) == (is_open or low + more <= ends[-1])
    usage = {"input_tokens": data.draw(st.integers(low, low + more)), "output_tokens": data.draw(st.integers(0, 5))}
    try:
        program.price(usage)
    except PartAboveWhole:
        raise AssertionError("the program has no parts") from None
    except UsageError:
        assert found is not None
