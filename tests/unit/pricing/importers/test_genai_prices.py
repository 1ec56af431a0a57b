"""What the list of genai-prices comes to, worked out by hand."""

from decimal import Decimal

import pytest

from pricing import UsageError, format_program, parse_program
from pricing.importers import import_genai_prices
from tests.unit.pricing.importers.lists import dollars, excerpt, only_program, programs

LIST = import_genai_prices(excerpt("genai_prices"))
PROGRAMS = programs(LIST)


@pytest.mark.parametrize(
    ("model", "since", "usage", "expected"),
    [
        ("openai/o3", None, {"input_tokens": 1000, "output_tokens": 100}, "0.01 + 0.004"),
        ("openai/o3", "2025-06-10", {"input_tokens": 1000, "output_tokens": 100}, "0.002 + 0.0008"),
        ("openai/o3", "2026-10-12", {"input_tokens": 1000, "output_tokens": 0, "service_tier": "flex"}, "0.001"),
        ("openai/o3", "2026-10-14", {"input_tokens": 1000, "output_tokens": 0, "service_tier": "batch"}, "0.001"),
        ("openai/gpt-5.4", None, {"input_tokens": 272_000, "output_tokens": 0}, "0.68"),
        ("openai/gpt-5.4", None, {"input_tokens": 272_001, "output_tokens": 0}, "1.360005"),
        ("openai/whisper-1", None, {"audio_seconds": 60}, "0.006"),
        ("groq/whisper-large-v3", None, {"audio_seconds": 1}, "0.00030834"),
        ("groq/whisper-large-v3", None, {"audio_seconds": 0}, "0"),
        ("groq/whisper-large-v3", "2026-10-14", {"audio_seconds": 7200, "service_tier": "batch"}, "0.111"),
        ("perplexity/perplexity/sonar", None, {"input_tokens": 0, "output_tokens": 0, "web_searches": 2}, "0.005"),
        (
            "perplexity/perplexity/sonar",
            None,
            {"input_tokens": 0, "output_tokens": 0, "web_searches": 2, "search_type": "fast"},
            "0.002",
        ),
        (
            "perplexity/sonar-deep-research",
            None,
            {"input_tokens": 0, "output_tokens": 100, "reasoning_tokens": 30, "output_citation_tokens": 20},
            "0.0004 + 0.00009 + 0.00004",
        ),
    ],
)
def test_each_way_of_pricing_comes_to_the_amount_worked_out_by_hand(model, since, usage, expected):
    assert sum(map(Decimal, expected.split(" + "))) == dollars(PROGRAMS[model, since], **usage)


def test_an_hour_written_to_the_cache_is_inside_of_all_that_was_written():
    usage = {"input_tokens": 100, "cache_write_input_tokens": 60, "cache_write_1h_input_tokens": 20, "output_tokens": 0}
    program = PROGRAMS["anthropic/claude-haiku-4-5", None]

    expected = (40 * Decimal(1) + 40 * Decimal("1.25") + 20 * Decimal(2)) / 10**6

    assert expected == dollars(program, **usage)


def test_hours_of_the_day_stay_in_the_program_to_the_minute():
    program = PROGRAMS["deepseek/deepseek-chat", None]

    def price(hour: int, minute: int) -> Decimal:
        return dollars(program, input_tokens=10**6, output_tokens=0, hour=hour, minute=minute)

    assert [Decimal("0.135"), Decimal("0.27")] == [price(0, 29), price(0, 30)]
    assert [Decimal("0.27"), Decimal("0.135")] == [price(16, 29), price(16, 30)]


def test_prices_that_changed_are_programs_of_one_id_each_with_its_first_day():
    changed = [each for each in LIST.programs if each.model == "openai/o3"]

    assert {"openai-o3"} == {each.id for each in changed}
    assert [each.effective_from and each.effective_from.isoformat() for each in changed] == [
        None,
        "2025-06-10",
        "2026-10-12",
        "2026-10-14",
    ]


def test_a_day_on_which_no_price_changed_makes_no_program():
    prices = [
        {"prices": {"input_mtok": 4}},
        {"constraint": {"start_date": "2026-01-01"}, "prices": {"input_mtok": 4}},
        {"constraint": {"start_date": "2026-02-01"}, "prices": {"input_mtok": 3}},
    ]
    price_list = import_genai_prices([{"id": "p", "models": [{"id": "m", "prices": prices}]}])

    assert [str(each.effective_from) for each in price_list.programs] == ["None", "2026-02-01"]


def test_a_model_without_a_price_is_named_and_gets_no_program():
    assert LIST.unpriced == ("openrouter/deepseek-r1:free",)


def test_a_part_larger_than_its_whole_is_refused():
    with pytest.raises(UsageError, match="larger than its whole"):
        PROGRAMS["mistral/mistral-ocr-latest", "2026-10-14"].price({"pages": 1, "annotated_pages": 2})


def test_a_price_of_an_unknown_kind_is_named():
    model = {"id": "m", "prices": {"input_mtok": 1, "thoughts_kcount": 2}}
    price_list = import_genai_prices([{"id": "p", "models": [model]}])

    assert [(each.model, each.what) for each in price_list.not_expressed] == [("p/m", "thoughts_kcount")]


def test_a_part_that_only_some_hours_price_costs_what_its_whole_costs_at_the_others():
    prices = [
        {"prices": {"input_mtok": 4}},
        {
            "constraint": {"start_time": "06:00:00Z", "end_time": "10:00:00Z"},
            "prices": {"input_mtok": 2, "cache_read_mtok": 1},
        },
    ]
    program = only_program(import_genai_prices, [{"id": "p", "models": [{"id": "m", "prices": prices}]}])
    usage = {"input_tokens": 2 * 10**6, "cached_input_tokens": 10**6}

    assert [dollars(program, **usage, hour=hour) for hour in (5, 6)] == [8, 3]


@pytest.mark.parametrize("document", [{}, [1], [{"id": "p", "models": [{"id": "m"}]}]])
def test_another_document_is_refused(document):
    with pytest.raises(ValueError, match="genai-prices"):
        import_genai_prices(document)


@pytest.mark.parametrize("imported", LIST.programs, ids=lambda each: f"{each.id} {each.effective_from}")
def test_every_program_is_canonical(imported):
    assert imported.text == format_program(parse_program(imported.text))
