"""What LiteLLM's list comes to, worked out by hand from its fields."""

from decimal import ROUND_CEILING, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricing import UsageError, format_program, parse_program
from pricing.importers import import_litellm
from tests.unit.pricing.importers.lists import MICROCENTS, dollars, excerpt, only_program, programs

LIST = import_litellm(excerpt("litellm"))
PROGRAMS = {model: program for (model, _), program in programs(LIST).items()}

#: Monday to Friday, 7 in the morning in UTC: the dear hours of DeepSeek.
PEAK = {"hour": 7, "weekday": 3}


@pytest.mark.parametrize(
    ("model", "usage", "expected"),
    [
        ("gpt-4o", {"input_tokens": 1000, "output_tokens": 10}, "0.0025 + 0.0001"),
        ("gpt-4o", {"input_tokens": 1000, "cached_input_tokens": 400, "output_tokens": 0}, "0.0015 + 0.0005"),
        ("gpt-4o", {"input_tokens": 1000, "output_tokens": 10, "service_tier": "batch"}, "0.00125 + 0.00005"),
        ("gpt-4o", {"input_tokens": 1000, "output_tokens": 10, "service_tier": "priority"}, "0.00425 + 0.00017"),
        ("gemini-2.5-flash", {"input_tokens": 1000, "output_tokens": 0, "service_tier": "flex"}, "0.00015"),
        ("gemini-2.5-flash", {"input_tokens": 0, "output_tokens": 0, "web_searches": 5}, "0.035"),
        ("vertex_ai/gemini-3.5-flash", {"input_tokens": 0, "output_tokens": 0, "web_searches": 5}, "0.07"),
        ("text-embedding-3-small", {"input_tokens": 500}, "0.00001"),
        ("amazon.titan-embed-image-v1", {"input_tokens": 500, "input_images": 2}, "0.0004 + 0.00012"),
        ("ollama/llama3", {"input_tokens": 500, "output_tokens": 500}, "0"),
        ("azure/whisper", {"audio_seconds": 90}, "0.009"),
        ("gpt-4o-mini-transcribe", {"audio_seconds": 60}, "0.003"),
        ("gpt-4o-mini-transcribe", {"audio_seconds": 60, "input_tokens": 600, "output_tokens": 100}, "0.00125"),
        ("tts-1", {"characters": 2000}, "0.03"),
        ("1024-x-1024/50-steps/stability.stable-diffusion-xl-v1", {"images": 3}, "0.12"),
        ("nscale/stabilityai/stable-diffusion-xl-base-1.0", {"pixels": 1024 * 1000}, "0.003072"),
        ("runwayml/seedance2", {"video_seconds": 8, "resolution": "1080p"}, "3.2"),
        ("runwayml/seedance2", {"video_seconds": 8, "resolution": "720p"}, "2.88"),
        ("minimax/MiniMax-H3", {"video_seconds": 1, "resolution": "2k", "input_images": 7}, "0.13 + 0.08"),
        ("mistral/mistral-ocr-4", {"pages": 10, "annotated_pages": 2}, "0.04 + 0.01"),
        ("mistral/mistral-ocr-4", {"pages": 10, "service_tier": "batch"}, "0.02"),
        ("rerank-english-v3.0", {"queries": 3}, "0.006"),
        ("firecrawl/search", {"queries": 2, "max_results": 10}, "0.00332"),
        ("firecrawl/search", {"queries": 2, "max_results": 11}, "0.00664"),
        ("bedrock/*/1-month-commitment/cohere.command-text-v14", {"seconds": 60}, "0.66"),
        ("perplexity/pplx-70b-online", {"input_tokens": 9, "output_tokens": 1000}, "0.005 + 0.0028"),
    ],
)
def test_each_way_of_pricing_comes_to_the_amount_worked_out_by_hand(model, usage, expected):
    assert sum(map(Decimal, expected.split(" + "))) == dollars(PROGRAMS[model], **usage)


@pytest.mark.parametrize(("input_tokens", "expected"), [(200_000, "0.25"), (200_001, "0.5000025")])
def test_a_long_prompt_prices_the_whole_request(input_tokens, expected):
    usage = {"input_tokens": input_tokens, "output_tokens": 0}

    assert Decimal(expected) == dollars(PROGRAMS["gemini/gemini-2.5-pro"], **usage)


@pytest.mark.parametrize(("input_tokens", "expected"), [(199_999, "0.24999875"), (200_000, "0.5")])
def test_the_longer_price_of_xai_begins_with_the_length_itself(input_tokens, expected):
    program = PROGRAMS["xai/grok-4.20-multi-agent-beta-0309"]

    assert Decimal(expected) == dollars(program, input_tokens=input_tokens, output_tokens=0)


@pytest.mark.parametrize(("input_tokens", "price"), [(32_000, "0.3"), (32_001, "0.5"), (999_999_999, "1.6")])
def test_ranges_of_lengths_price_the_whole_request_and_the_last_has_no_end(input_tokens, price):
    program = PROGRAMS["dashscope/qwen3-coder-flash"]

    assert Decimal(price) * input_tokens / 10**6 == dollars(program, input_tokens=input_tokens, output_tokens=0)


def test_the_dearer_hours_and_the_cheaper_ones_follow_the_clock_of_the_usage():
    program = PROGRAMS["deepseek-flash"]
    usage = {"input_tokens": 10**6, "output_tokens": 0}

    assert Decimal("0.3") == dollars(program, **usage, **PEAK)
    assert Decimal("0.15") == dollars(program, **usage, hour=6 - 2, weekday=3)
    assert Decimal("0.15") == dollars(program, **usage, hour=7, weekday=6)


def test_weekdays_of_a_calendar_that_is_ahead_begin_in_the_evening():
    entry = {
        "mode": "chat",
        "litellm_provider": "tencent",
        "input_cost_per_token": Decimal("0.000002"),
        "off_peak_pricing": {
            "input_cost_per_token": Decimal("0.000001"),
            "weekday_timezone": "Asia/Shanghai",
            "windows": [{"hours_utc": "00:00-00:00", "weekdays": [6, 7]}],
        },
    }
    program = only_program(import_litellm, {"m": entry})

    assert [dollars(program, input_tokens=10**6, weekday=5, hour=hour) for hour in (15, 16)] == [2, 1]
    assert [dollars(program, input_tokens=10**6, weekday=7, hour=hour) for hour in (15, 16)] == [1, 2]


def test_regions_and_speed_make_all_tokens_dearer_but_no_search():
    program = PROGRAMS["claude-opus-4-8"]
    usage = {"input_tokens": 10**6, "output_tokens": 0, "web_searches": 1}

    assert Decimal("5.01") == dollars(program, **usage)
    assert Decimal("5.51") == dollars(program, **usage, inference_geo="us")
    assert Decimal("11.01") == dollars(program, **usage, inference_geo="us", speed="fast")


def test_audio_that_was_cached_is_priced_once():
    tokens = {"input_tokens": 100, "input_audio_tokens": 60, "cached_input_tokens": 50, "cached_input_audio_tokens": 40}
    program = PROGRAMS["gpt-realtime"]

    text, audio, cached = 30 * Decimal("4"), 20 * Decimal("32"), 50 * Decimal("0.4")

    assert (text + audio + cached) / 10**6 == dollars(program, **tokens, output_tokens=0)


def test_a_model_that_is_sold_at_one_service_tier_only_is_refused_at_the_others():
    program = PROGRAMS["fireworks_ai/accounts/fireworks/models/minimax-m2p7"]
    usage = {"input_tokens": 10**6, "output_tokens": 0}

    assert Decimal("1.2") == dollars(program, **usage, service_tier="priority")
    with pytest.raises(UsageError):
        program.price(usage)


def test_a_service_tier_that_the_list_does_not_price_is_refused():
    with pytest.raises(UsageError, match="service_tier"):
        PROGRAMS["gpt-4o"].price({"input_tokens": 1, "output_tokens": 1, "service_tier": "flex"})


def test_what_nobody_counted_is_refused_and_not_free():
    for model, usage in (("gpt-4o", {"input_tokens": 1}), ("tts-1", {}), ("runwayml/seedance2", {"resolution": "4k"})):
        with pytest.raises(UsageError, match="missing"):
            PROGRAMS[model].price(usage)


def test_a_model_without_a_price_is_named_and_gets_no_program():
    assert LIST.unpriced == ("github_copilot/gpt-4o",)
    assert "github_copilot/gpt-4o" not in PROGRAMS


def test_what_no_program_says_is_named_with_its_reason():
    left_out = {(each.model, each.what) for each in LIST.not_expressed}

    assert ("multimodalembedding", "input_cost_per_video_per_second_above_8s_interval") in left_out
    assert ("gpt-6-luna", "input_cost_per_token_decisions") in left_out
    assert ("gemini-2.5-flash", "search_free_requests") in left_out


def test_a_price_of_an_unknown_kind_is_named_and_alone_makes_no_program():
    price_list = import_litellm({"m": {"mode": "chat", "input_cost_per_thought": Decimal(1), "litellm_provider": "p"}})

    assert [(x.model, x.what) for x in price_list.not_expressed] == [
        ("m", "the model"),
        ("m", "input_cost_per_thought"),
    ]
    assert price_list.programs == ()


def test_one_provider_can_be_imported_with_the_ids_of_the_whole_list():
    some = import_litellm(excerpt("litellm"), provider="openai")

    assert {each.id for each in some.programs} < {each.id for each in LIST.programs}


@pytest.mark.parametrize("price", [True, None, -1, Decimal("-0.1"), {"x": True}])
def test_a_price_that_is_none_is_refused_with_its_field(price):
    entry = {"mode": "chat", "litellm_provider": "p", "input_cost_per_token": [price]}

    with pytest.raises(ValueError, match="input_cost_per_token of m"):
        import_litellm({"m": entry})


@pytest.mark.parametrize("document", [[], {"gpt-4o": 1}])
def test_another_document_is_refused(document):
    with pytest.raises(ValueError, match="LiteLLM"):
        import_litellm(document)


@pytest.mark.parametrize("imported", LIST.programs, ids=lambda each: each.id)
def test_every_program_is_canonical_and_not_free_by_accident(imported):
    program = parse_program(imported.text)

    assert imported.text == format_program(program)
    assert imported.is_free == (imported.model == "ollama/llama3")


@pytest.mark.parametrize("model", [each.model for each in LIST.programs])
def test_every_price_of_the_list_is_in_the_program_or_named_as_left_out(model):
    entry = excerpt("litellm")[model]
    prices = {field for field, price in entry.items() if "cost" in field and isinstance(price, Decimal) and price}
    left_out = {each.what for each in LIST.not_expressed if each.model == model}

    def written(changed: dict) -> str:
        return import_litellm({model: {**entry, **changed}}).programs[0].text

    unchanged = {field for field in prices if written({field: 3 * entry[field]}) == written({})}

    # An older name of the price of cached input stands beside it; seconds are listed under several names.
    repeated = {"input_cost_per_token_cache_hit"}
    repeated |= {f for f in prices if f.endswith("_second") and any(entry[f] == entry[o] for o in prices - {f})}
    assert unchanged - repeated == left_out & prices


prices = st.integers(0, 10**6).map(lambda picodollars: Decimal(picodollars).scaleb(-12))
FIELDS = {
    "cache_read_input_token_cost": "cached_input_tokens",
    "cache_creation_input_token_cost": "cache_write_input_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "input_cost_per_video_token": "input_video_tokens",
}
LONG = ("input_cost_per_token", "output_cost_per_token", "cache_read_input_token_cost")


@given(
    st.fixed_dictionaries(
        {"input_cost_per_token": prices, "output_cost_per_token": prices},
        optional=dict.fromkeys((*FIELDS, *(f"{field}_above_200k_tokens" for field in LONG)), prices),
    ),
    st.fixed_dictionaries({part: st.integers(0, 10**5) for part in ("text", *FIELDS.values(), "output_tokens")}),
)
def test_the_price_is_the_sum_over_the_list_s_own_fields_whatever_they_are(entry, counts):
    program = only_program(import_litellm, {"m": {**entry, "mode": "chat", "litellm_provider": "p"}})
    output = counts.pop("output_tokens")
    total = sum(counts.values())

    def listed(field: str, otherwise: Decimal | None) -> Decimal | None:
        price = entry.get(field, otherwise)
        return entry.get(f"{field}_above_200k_tokens", price) if total > 200_000 else price

    whole = listed("input_cost_per_token", None)
    expected = output * listed("output_cost_per_token", None) + counts["text"] * whole
    for field, part in FIELDS.items():
        price = listed(field, None)
        expected += counts[part] * (whole if price is None else price)
    usage = {part: count for part, count in counts.items() if part != "text"}
    usage = {key: value for key, value in usage.items() if key in program.keys}

    price = program.price({"input_tokens": total, "output_tokens": output, **usage})

    assert (expected * MICROCENTS).to_integral_value(ROUND_CEILING) == price.total_microcents
