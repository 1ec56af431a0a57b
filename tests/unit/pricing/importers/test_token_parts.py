"""Every token is in exactly one meter, whichever parts a list prices."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing.importers.token_parts import PARTS, meter_of
from pricing.language.expressions import linear_form
from pricing.language.format import format_expression

INPUT = [part for part, tags in PARTS.items() if "input" in tags and part != "input_tokens"]
MODALITIES = ("audio", "image", "video")


def closed(parts: set[str]) -> list[str]:
    """The parts, with the part that each two of them have in common, and their whole."""
    tags = {PARTS[part] for part in parts}
    common = {one | other for one in tags for other in tags}
    return [part for part, own in PARTS.items() if own in tags | common or part == "input_tokens"]


@pytest.mark.money_bug(33)
@given(st.sets(st.sampled_from(INPUT)).map(closed))
def test_the_meters_of_all_priced_parts_sum_to_the_whole(parts):
    total: dict = {}
    for part in parts:
        for atom, coefficient in linear_form(meter_of(part, parts)).items():
            total[atom.name] = total.get(atom.name, 0) + coefficient

    assert {key: count for key, count in total.items() if count} == {"input_tokens": 1}


def test_what_is_in_two_parts_is_taken_off_once():
    parts = ["input_tokens", "cached_input_tokens", "input_audio_tokens", "cached_input_audio_tokens"]

    assert (
        format_expression(meter_of("input_tokens", parts))
        == "input_tokens - cached_input_tokens - input_audio_tokens + cached_input_audio_tokens"
    )
    assert format_expression(meter_of(parts[1], parts)) == "cached_input_tokens - cached_input_audio_tokens"
