"""A usage object of the OpenAI shape in the words of price programs, and the box that it must lie in."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inference_proxy.chat import prepare, read_usage
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.usage import UsageUnreadable
from pricing import Span

MODELS = ModelCatalog([Model(id="m", context_length=1000, max_output_tokens=100)])
BODY = json.dumps({"model": "m", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 50}).encode()

DETAILED = {
    "prompt_tokens": 100,
    "completion_tokens": 40,
    "total_tokens": 140,
    "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 20, "cache_write_tokens": 5, "text_tokens": 80},
    "completion_tokens_details": {"reasoning_tokens": 7, "audio_tokens": 3, "accepted_prediction_tokens": 2},
}


@pytest.mark.money_bug(29)
def test_parts_are_read_in_the_words_of_programs() -> None:
    assert read_usage(DETAILED) == {
        "input_tokens": 100,
        "cached_input_tokens": 10,
        "cache_write_input_tokens": 5,
        "input_audio_tokens": 20,
        "output_tokens": 40,
        "reasoning_tokens": 7,
        "output_audio_tokens": 3,
        "mode": "thinking",
    }


@pytest.mark.money_bug(30)
def test_without_details_nothing_was_cached_and_nothing_was_reasoned() -> None:
    for details in ({}, {"prompt_tokens_details": None, "completion_tokens_details": {}}):
        assert read_usage({"prompt_tokens": 4, "completion_tokens": 3, **details}) == {
            "input_tokens": 4,
            "cached_input_tokens": 0,
            "output_tokens": 3,
            "reasoning_tokens": 0,
            "mode": "normal",
        }


@pytest.mark.money_bug(36)
def test_a_part_without_a_word_is_charged_as_its_whole_and_reported() -> None:
    details = {"telepathy_tokens": 3, "shyness_tokens": 0, "note": "x"}
    with capture_logs() as logs:
        usage = read_usage({"prompt_tokens": 4, "completion_tokens": 3, "prompt_tokens_details": details})

    # It was not in the bound, so that no program may get to see it.
    assert usage == read_usage({"prompt_tokens": 4, "completion_tokens": 3})
    assert [(entry["event"], entry["part"]) for entry in logs] == [("usage.unknown_part", "telepathy_tokens")]


@pytest.mark.money_bug(34)
@pytest.mark.parametrize(
    "details",
    [
        {"prompt_tokens_details": {"audio_tokens": 5}},
        {"prompt_tokens_details": {"cached_tokens": -1}},
        {"prompt_tokens_details": [1]},
        {"completion_tokens_details": {"reasoning_tokens": 4}},
        {"completion_tokens_details": {"image_tokens": "1"}},
    ],
)
def test_a_part_that_cannot_be_makes_the_usage_unreadable(details: dict[str, Any]) -> None:
    with pytest.raises(UsageUnreadable):
        read_usage({"prompt_tokens": 4, "completion_tokens": 3, **details})


counts = st.integers(0, 60) | st.none() | st.just("3") | st.just(-1)
names = st.sampled_from(
    ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "reasoning_tokens", "text_tokens"]
)


@pytest.mark.money_bug(10)
@given(
    st.fixed_dictionaries(
        {"prompt_tokens": counts, "completion_tokens": counts},
        optional={
            "prompt_tokens_details": st.none() | st.dictionaries(names, counts),
            "completion_tokens_details": st.none() | st.dictionaries(names, counts),
        },
    )
)
def test_what_is_read_lies_in_the_box_of_its_request_for_every_word_that_programs_know(usage: dict[str, Any]) -> None:
    box = prepare(BODY, MODELS).box
    try:
        read = read_usage(usage)
    except UsageUnreadable:
        return
    if read["output_tokens"] > 50:  # the backend did not obey the limit that it was given
        return
    for key, value in read.items():
        if key == "mode":
            assert value in box["mode"]
        else:
            assert isinstance(box[key], Span)
            assert box[key].low <= value <= box[key].high
