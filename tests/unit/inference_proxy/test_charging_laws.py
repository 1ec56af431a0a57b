"""What a request is charged, from the usage object that its backend sent: never more than was held, never below
nothing, and each token once. Over the chat programs of all sellers that there are examples of."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from inference_proxy.chat import prepare, read_usage
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.prepared import Prepared
from inference_proxy.slices import first_slice
from inference_proxy.usage import LARGEST_COUNT, UsageUnreadable
from pricing import Program, Usage, UsageBox, UsageError, parse_program

ROOT = Path(__file__).parents[3]
MODEL = Model(id="m", context_length=32768, max_output_tokens=8192, hold_slice_tokens=512)
MODELS = ModelCatalog([MODEL])

#: What the gate says itself of a request; no backend counts it.
CIRCUMSTANCES: Usage = {"hour": 12, "weekday": 1, "minute": 720, "plan": "pro"}


def bound_of(program: Program, box: UsageBox) -> int:
    return program.bound({**box, **CIRCUMSTANCES})


def charge_of(program: Program, usage: Usage) -> int:
    return program.price({**usage, **CIRCUMSTANCES}).total_microcents


def prices_chats(program: Program) -> bool:
    """Whether all that it reads is known of a chat."""
    try:
        bound_of(program, prepared({}).box)
    except UsageError:
        return False
    return True


def prepared(fields: dict[str, Any]) -> Prepared:
    body = {"model": "m", "messages": [{"role": "user", "content": "Hello"}], **fields}
    return prepare(msgspec.json.encode(body), MODELS)


def chat_programs() -> list[Program]:
    files = [file for folder in ("prices", "tollgate/demo_prices") for file in sorted((ROOT / folder).rglob("*.toml"))]
    programs = [parse_program(file.read_text()) for file in files if not file.name.endswith(".cases.toml")]
    return [program for program in programs if prices_chats(program)]


PROGRAMS = chat_programs()
programs = st.sampled_from(PROGRAMS)

requests = st.fixed_dictionaries(
    {},
    optional={
        "max_tokens": st.integers(1, 10_000) | st.just(10**12),
        "n": st.integers(1, 5),
        "stream": st.booleans(),
        "tools": st.just([]),  # makes the bound of the prompt the whole context
        "user": st.text(max_size=200),
    },
).map(prepared)


@st.composite
def parts(draw: st.DrawFn, whole: int, names: list[str]) -> dict[str, int]:
    """Parts that do not overlap."""
    found = {}
    for name in draw(st.permutations(names)):
        found[name] = draw(st.integers(0, whole))
        whole -= found[name]
    return found


@st.composite
def truthful(draw: st.DrawFn, prompt: int, output: int) -> dict[str, Any]:
    """The usage object of a backend that keeps to these limits."""
    prompt, output = draw(st.integers(0, prompt) | st.just(prompt)), draw(st.integers(0, output) | st.just(output))
    usage: dict[str, Any] = {"prompt_tokens": prompt, "completion_tokens": output}
    if draw(st.booleans()):
        usage["prompt_tokens_details"] = draw(
            parts(prompt, ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens"])
        )
    if draw(st.booleans()):
        usage["completion_tokens_details"] = draw(parts(output, ["reasoning_tokens", "audio_tokens"]))
    return usage


def test_there_are_chat_programs_to_try() -> None:
    assert len(PROGRAMS) >= 5


@pytest.mark.money_bug(10, 11)
@given(st.data(), programs, requests)
def test_no_charge_is_above_the_hold_whatever_was_cached_reasoned_or_dearer_by_length(
    data: st.DataObject, program: Program, request: Prepared
) -> None:
    prompt = request.box["input_tokens"].high  # type: ignore[union-attr]
    usage = read_usage(data.draw(truthful(prompt, request.output_limit)))

    assert charge_of(program, usage) <= bound_of(program, request.box)


@pytest.mark.money_bug(10, 22)
@given(st.data(), programs, requests)
def test_no_stream_costs_more_than_the_slices_that_are_held_for_it(
    data: st.DataObject, program: Program, request: Prepared
) -> None:
    covered = min(first_slice(request) * data.draw(st.integers(1, 3)), request.output_limit)
    told = data.draw(truthful(request.box["input_tokens"].high, covered))  # type: ignore[union-attr]
    box = request.box_within(covered, prompt_tokens=told["prompt_tokens"])

    assert charge_of(program, read_usage(told)) <= bound_of(program, box)
    assert bound_of(program, box) <= bound_of(program, request.box_within(covered))


def text(prices: dict[str, str]) -> str:
    """A program with a charge for each of these meters, in microcents a token."""
    charges = [
        f'[[charges]]\nname = "{number}"\nmeter = "{meter}"\nprice = {price}\nper = 100_000_000\n'
        for number, (meter, price) in enumerate(prices.items())
    ]
    return f'id = "p"\ncurrency = "USD"\n{"".join(charges)}'


INPUT, CACHED, OUTPUT = "input_tokens - cached_input_tokens", "cached_input_tokens", "output_tokens"


@pytest.mark.money_bug(33)
@given(truthful(100_000, 10_000))
def test_at_one_price_for_all_a_charge_is_the_number_of_tokens_however_they_were_cached(usage: dict[str, Any]) -> None:
    program = parse_program(text({INPUT: "3", CACHED: "3", OUTPUT: "3"}))

    assert charge_of(program, read_usage(usage)) == 3 * (usage["prompt_tokens"] + usage["completion_tokens"])


@pytest.mark.money_bug(35)
@given(truthful(100_000, 10_000))
def test_without_a_price_of_their_own_cached_tokens_cost_what_the_others_do(usage: dict[str, Any]) -> None:
    program = parse_program(text({"input_tokens": "3", OUTPUT: "7"}))

    assert charge_of(program, read_usage(usage)) == 3 * usage["prompt_tokens"] + 7 * usage["completion_tokens"]


@pytest.mark.money_bug(38)
@given(st.integers(1, 10**6), st.decimals("0.000000001", 5, places=9, allow_nan=False))
def test_whatever_has_a_price_costs_a_microcent_at_least(tokens: int, price: Decimal) -> None:
    program = parse_program(text({"input_tokens": f"{price:f}"}))
    usage = read_usage({"prompt_tokens": tokens, "completion_tokens": 0})

    exact = tokens * price
    assert max(exact, 1) <= charge_of(program, usage) < exact + 1


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 10**13) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=3,
)
counts = st.integers(-5, 100) | json_values
DETAILS = ["cached_tokens", "cache_write_tokens", "audio_tokens", "image_tokens", "reasoning_tokens", "new_tokens"]
details = st.dictionaries(st.sampled_from(DETAILS), counts, max_size=4) | json_values
odd_usages = (
    st.fixed_dictionaries(
        {"prompt_tokens": counts, "completion_tokens": counts},
        optional={"prompt_tokens_details": details, "completion_tokens_details": details, "total_tokens": counts},
    )
    | json_values
)


@pytest.mark.money_bug(34)
@given(programs, odd_usages)
def test_whatever_a_backend_says_a_charge_is_nothing_or_more_or_is_refused(program: Program, usage: Any) -> None:
    try:
        charge = charge_of(program, read_usage(usage))
    except (UsageUnreadable, UsageError):
        return

    assert type(charge) is int
    assert 0 <= charge < LARGEST_COUNT**2


@pytest.mark.money_bug(29)
@pytest.mark.parametrize(
    "usage",
    [
        {"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},  # of the Responses API
        {"input_tokens": 10, "cache_read_input_tokens": 4, "output_tokens": 5},  # of Anthropic's
        {"promptTokenCount": 10, "candidatesTokenCount": 5},  # of Google's
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5}},
        {},
    ],
    ids=str,
)
def test_a_usage_in_the_words_of_another_api_is_not_read_as_none(usage: dict[str, Any]) -> None:
    with pytest.raises(UsageUnreadable):
        read_usage(usage)


@pytest.mark.money_bug(36)
@pytest.mark.parametrize(
    "usage",
    [
        {"prompt_cache_hit_tokens": 4},  # of DeepSeek, beside what is in the details elsewhere
        {"cached_tokens": 4},  # of Moonshot
        {"cache_creation_input_tokens": 4},
        {"num_search_queries": 2},
        {"prompt_tokens_details": {"images": 2}},
    ],
    ids=str,
)
def test_whatever_else_a_backend_counts_is_reported(usage: dict[str, Any]) -> None:
    with capture_logs() as logs:
        read_usage({"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, **usage})

    assert [entry["event"] for entry in logs] == ["usage.unknown_part"]
