"""An event stream on its way through: every word passes, and only what the client did not ask for is taken out."""

from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference_proxy.sse import MAX_EVENT, EventStream, EventTooLarge, Part

DONE = "[DONE]"
PROMPT = 7

#: Also what could be taken for a field, an event or an end of the stream, if it were not within a text.
texts = st.text(max_size=8) | st.sampled_from(
    ['"usage":{"completion_tokens":9}}', ',"usage":{}}\n\n', "data: [DONE]\n\n", '"error"', "}}\n\n", "naïve 账本"]
)
separators = st.sampled_from([b"\n\n", b"\r\n\r\n"])


def event(data: Any, separator: bytes = b"\n\n") -> bytes:
    return b"data: " + (data.encode() if isinstance(data, str) else msgspec.json.encode(data)) + separator


def usage(tokens: int) -> dict[str, int]:
    return {"prompt_tokens": PROMPT, "total_tokens": PROMPT + tokens, "completion_tokens": tokens}


def word(text: str, *, index: int = 0, told: int | None = None) -> dict[str, Any]:
    """A chunk with a word of one choice, and how many tokens that has by then where it is told."""
    chunk = {"id": "c", "choices": [{"index": index, "delta": {"content": text}, "finish_reason": None}]}
    return chunk if told is None else {**chunk, "usage": usage(told)}


def usage_alone(tokens: int) -> dict[str, Any]:
    return {"id": "c", "choices": [], "usage": usage(tokens)}


@st.composite
def answers(draw: st.DrawFn) -> list[dict[str, Any]]:
    """The chunks with words of up to three choices, counted along one by one as vLLM does, or not at all."""
    counts: dict[int, int] = {}
    counts_along = draw(st.booleans())
    chunks = []
    for index in draw(st.lists(st.integers(0, draw(st.integers(0, 2))), max_size=12)):
        counts[index] = counts.get(index, 0) + draw(st.integers(1, 3))
        chunks.append(word(draw(texts), index=index, told=counts[index] if counts_along else None))
    return chunks


def stream_for(chunks: list[dict[str, Any]], **wants: bool) -> EventStream:
    choices = {chunk["choices"][0]["index"] for chunk in chunks}
    return EventStream(**{"wants_usage": False, **wants}, answers=max(choices, default=0) + 1)


def passed(stream: EventStream, *pieces: bytes) -> bytes:
    """What goes to the client."""
    return b"".join(part.data for piece in pieces for part in stream.feed(piece))


def pieces_of(data: bytes, cuts: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(min(cut, len(data)) for cut in cuts), len(data)])]


def chunks_in(data: bytes) -> list[Any]:
    return [msgspec.json.decode(line[6:]) for line in data.splitlines() if line.startswith(b"data: ")]


# --- laws


@given(answers(), separators, st.lists(st.integers(0, 2000), max_size=8), st.booleans())
def test_what_the_client_gets_does_not_depend_on_how_the_bytes_arrive(
    chunks: list[dict[str, Any]], separator: bytes, cuts: list[int], wants_all_usage: bool
) -> None:
    data = b"".join(event(each, separator) for each in [*chunks, usage_alone(99), DONE])
    at_once, in_pieces = (stream_for(chunks, wants_all_usage=wants_all_usage) for _ in range(2))

    assert passed(in_pieces, *pieces_of(data, cuts)) == passed(at_once, data)
    assert (in_pieces.usage, in_pieces.is_done) == (at_once.usage, at_once.is_done) == (usage(99), True)


@given(answers(), separators)
def test_without_asking_for_usage_a_client_gets_every_chunk_but_for_that_field(
    chunks: list[dict[str, Any]], separator: bytes
) -> None:
    data = [event(each, separator) for each in [*chunks, usage_alone(99), DONE]]

    got = chunks_in(passed(stream_for(chunks), *data))

    assert got == [{name: value for name, value in chunk.items() if name != "usage"} for chunk in chunks]


@given(answers(), separators)
def test_a_client_that_asked_for_all_usage_gets_every_chunk_to_the_byte(
    chunks: list[dict[str, Any]], separator: bytes
) -> None:
    """The last chunk, which is for usage alone, and [DONE] are kept back until the request is settled."""
    data = [event(each, separator) for each in chunks]

    got = passed(
        stream_for(chunks, wants_usage=True, wants_all_usage=True),
        *data,
        event(usage_alone(99), separator),
        event(DONE, separator),
    )

    assert got == b"".join(data)


@given(answers(), separators)
def test_a_part_is_counted_as_the_tokens_of_all_choices_up_to_it(
    chunks: list[dict[str, Any]], separator: bytes
) -> None:
    stream = stream_for(chunks)
    counts: dict[int, int] = {}

    for chunk in chunks:
        [part] = stream.feed(event(chunk, separator))
        if "usage" in chunk:
            counts[chunk["choices"][0]["index"]] = chunk["usage"]["completion_tokens"]
            assert (part.is_counted, part.prompt_tokens, part.output_tokens) == (True, PROMPT, sum(counts.values()))
        else:
            assert (part.is_counted, part.usage) == (False, None)


# --- where the usage is


@pytest.mark.money_bug(27)
@pytest.mark.parametrize(
    "end",
    [
        [word("b"), usage_alone(2), DONE],
        [word("b", told=2), DONE],
        [word("b", told=1), usage_alone(2), DONE],
        [usage_alone(2), usage_alone(2), DONE],
        [usage_alone(1), usage_alone(2), DONE],
        [DONE, usage_alone(2)],
        [usage_alone(1), DONE, usage_alone(2)],
        [{**usage_alone(2), "model": "another"}, DONE],
        [usage_alone(2), {**word("b"), "usage": None}, DONE],
    ],
    ids=str,
)
def test_the_last_usage_counts_wherever_it_is(end: list[Any]) -> None:
    stream = EventStream(wants_usage=True)

    passed(stream, event(word("a")), *map(event, end))

    assert stream.usage == usage(2)
    [chunk] = chunks_in(stream.usage_chunk())
    assert (chunk["choices"], chunk["usage"]) == ([], usage(2))


@pytest.mark.parametrize("told", ["missing", "null"])
def test_where_there_is_no_usage_there_is_no_chunk_for_it(told: str) -> None:
    stream = EventStream(wants_usage=True)
    last = word("a") if told == "missing" else {**word("a"), "usage": None}

    passed(stream, event(last), event(DONE))

    assert (stream.usage, stream.usage_chunk()) == (None, b"")


@pytest.mark.parametrize("count", [-1, "3", 2.0, None, True, [3]], ids=str)
def test_a_count_that_cannot_be_is_none(count: Any) -> None:
    part = Part(b"", {"prompt_tokens": count, "completion_tokens": count})

    assert (part.prompt_tokens, part.output_tokens) == (None, None)


@pytest.mark.parametrize("found", [None, 3, "usage", [], {}], ids=str)
def test_usage_that_is_no_object_with_counts_says_nothing(found: Any) -> None:
    assert Part(b"", found).output_tokens is None


def test_a_client_that_did_not_ask_gets_no_usage_chunk() -> None:
    stream = EventStream(wants_usage=False)

    passed(stream, event(usage_alone(2)), event(DONE))

    assert stream.usage_chunk() == b""


def test_nothing_passes_after_done() -> None:
    stream = EventStream(wants_usage=True, wants_all_usage=True)

    passed(stream, event(DONE))

    assert passed(stream, event(word("late")), event(word("later", told=3)), b": ping\n\n") == b""


# --- what is no chunk


def test_an_error_is_kept_back_and_noticed() -> None:
    stream = EventStream(wants_usage=False)

    got = passed(stream, event(word("a", told=1)), event({"error": {"message": "died"}}), event(DONE))

    assert [chunk["choices"][0]["delta"]["content"] for chunk in chunks_in(got)] == ["a"]
    assert (stream.has_failed, stream.is_done, stream.usage) == (True, True, usage(1))


def test_a_chunk_whose_error_is_null_is_none() -> None:
    stream = EventStream(wants_usage=False)

    assert passed(stream, event({**word("a"), "error": None}))
    assert not stream.has_failed


@pytest.mark.parametrize("raw", [b'data: {"usage": {"comp\n\n', b'data: ["usage"]\n\n', b": ping\n\n", b"event: x\n\n"])
def test_what_is_no_chunk_passes_as_it_came(raw: bytes) -> None:
    stream = EventStream(wants_usage=False)

    assert passed(stream, raw) == raw
    assert stream.usage is None


def test_an_event_without_end_is_not_waited_for() -> None:
    stream = EventStream(wants_usage=False)
    stream.feed(b"x" * MAX_EVENT)

    with pytest.raises(EventTooLarge):
        stream.feed(b"x")


def test_a_large_feed_of_whole_events_is_no_large_event() -> None:
    data = event(word("x" * 1000)) * (MAX_EVENT // 1000 + 1)

    assert passed(EventStream(wants_usage=False), data) == data


# --- an end that comes early


@pytest.mark.parametrize("wants_usage", [False, True])
def test_an_early_end_closes_each_choice_that_was_begun_and_says_why(wants_usage: bool) -> None:
    stream = EventStream(wants_usage=wants_usage, answers=2)
    [*_, last] = stream.feed(event(word("a", index=0, told=1)) + event(word("b", index=1, told=1)))

    end, *rest = chunks_in(stream.early_end(last, {"reason": "insufficient_funds"}))

    assert [(each["index"], each["finish_reason"]) for each in end["choices"]] == [(0, "length"), (1, "length")]
    assert (end["id"], end["tollgate"]) == ("c", {"reason": "insufficient_funds"})
    assert rest == ([usage_alone(2)] if wants_usage else [])


def test_an_early_end_leaves_out_who_had_ended_and_does_not_look_beyond_its_part() -> None:
    stream = EventStream(wants_usage=False, answers=3)
    ended = word("b", index=1, told=1)
    ended["choices"][0]["finish_reason"] = "stop"
    first, second, _ = stream.feed(event(word("a", index=0, told=1)) + event(ended) + event(word("c", index=2, told=1)))

    assert first.unfinished == {0, 1, 2}
    [end] = chunks_in(stream.early_end(second, {"reason": "insufficient_funds"}))
    assert [(each["index"], each["finish_reason"]) for each in end["choices"]] == [(0, "length"), (2, "length")]
