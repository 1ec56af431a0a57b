"""The price list of pydantic's genai-prices (prices/new_data/v2/data.json and v3), read as its own calculator reads it.

Prices that changed are several programs of one id, each with the day from which it holds; the price book assigns them.
Prices by the hour stay in the program. Counts are parts inside their wholes here as there.
"""

from collections.abc import Iterator, Sequence
from datetime import date, time
from decimal import Decimal
from itertools import product
from typing import Any, TypeAlias

import msgspec

from pricing.importers.off_peak import any_of, daily_hours
from pricing.importers.price_list import ImportedProgram, NotExpressed, PriceList, program, program_ids
from pricing.importers.rate_table import Row, token_charges, unit_charge
from pricing.importers.token_parts import next_wholes
from pricing.language.definition import Charge

#: Price of a million tokens → the part it prices.
_TOKEN_PRICES = {
    "input_mtok": "input_tokens",
    "cache_read_mtok": "cached_input_tokens",
    "cache_write_mtok": "cache_write_input_tokens",
    "cache_write_1h_mtok": "cache_write_1h_input_tokens",
    "input_audio_mtok": "input_audio_tokens",
    "cache_audio_read_mtok": "cached_input_audio_tokens",
    "input_image_mtok": "input_image_tokens",
    "cache_image_read_mtok": "cached_input_image_tokens",
    "input_video_mtok": "input_video_tokens",
    "cache_video_read_mtok": "cached_input_video_tokens",
    "output_mtok": "output_tokens",
    "output_reasoning_mtok": "reasoning_tokens",
    "output_citation_mtok": "output_citation_tokens",
    "output_audio_mtok": "output_audio_tokens",
    "output_image_mtok": "output_image_tokens",
    "output_video_mtok": "output_video_tokens",
}

#: Price of something else → its name, its meter, and how many units the price is for.
_UNIT_PRICES = {
    "input_mchars": ("characters", "characters", 1_000_000),
    "input_text_messages_kcount": ("text messages", "text_messages", 1000),
    "audio_hours": ("audio", "audio_seconds", 3600),
    "input_audio_hours": ("audio input", "input_audio_seconds", 3600),
    "output_audio_hours": ("audio output", "output_audio_seconds", 3600),
    "input_gpixels": ("pixels", "pixels", 1_000_000_000),
    "input_document_kpages": ("pages", "pages", 1000),
    "input_annotated_document_kpages": ("annotated pages", "annotated_pages", 1000),
    "rerank_searches_kcount": ("rerank searches", "queries", 1000),
    "web_searches_kcount": ("web search", "web_searches", 1000),
    "social_searches_kcount": ("social search", "social_searches", 1000),
    "storage_searches_kcount": ("storage search", "storage_searches", 1000),
    "code_executions_kcount": ("code execution", "code_executions", 1000),
    "requests_kcount": ("request", "1", 1000),
}

#: Units that are counted inside another, when the list prices both: the price of the whole is for the rest of it.
_UNITS_INSIDE = {
    "audio_seconds": ("input_audio_seconds", "output_audio_seconds"),
    "pages": ("annotated_pages",),
}

#: Meters of what a model may be asked for besides; the others must be counted.
_OPTIONAL = ("web_searches", "social_searches", "storage_searches", "code_executions", "annotated_pages")

#: What a variant is called here, where the list and the rest of our programs differ: (key, value) → the same.
_RENAMED = {("processing", "batch"): ("service_tier", "batch")}
_DEFAULTS = {"service_tier": "standard", "speed": "standard", "search_type": "standard", "route": "any"}
_SAME_AS_NONE = ("default", "standard")

#: Groq charges at least ten seconds of audio; the list's calculator knows the models, the list does not.
_GROQ_WHISPER = ("groq/whisper-large-v3", "groq/whisper-large-v3-turbo")
_AT_LEAST_TEN_SECONDS = "max(audio_seconds, 10) if audio_seconds > 0 else 0"


class _Tier(msgspec.Struct, frozen=True):
    start: int  # the tokens of the prompt above which the price holds, for the whole request
    price: Decimal


class _Tiered(msgspec.Struct, frozen=True):
    base: Decimal
    tiers: tuple[_Tier, ...]


_Prices: TypeAlias = dict[str, Decimal | _Tiered]

#: The prices of a day: conditions → prices, the special cases first, the common one last.
_Resolved: TypeAlias = Sequence[tuple[tuple[str, ...], _Prices]]


class _Constraint(msgspec.Struct, frozen=True):
    start_date: date | None = None
    start_time: time | None = None
    end_time: time | None = None


class _Conditional(msgspec.Struct, frozen=True):
    prices: _Prices
    constraint: _Constraint | None = None


class _Variant(msgspec.Struct, frozen=True):
    when: dict[str, str]
    prices: _Prices
    constraint: _Constraint | None = None


class _Model(msgspec.Struct, frozen=True):
    id: str
    prices: _Prices | tuple[_Conditional, ...]
    price_variants: tuple[_Variant, ...] | None = None

    def conditional_prices(self) -> tuple[_Conditional, ...]:
        return (_Conditional(self.prices),) if isinstance(self.prices, dict) else self.prices

    def variants(self) -> tuple[_Variant, ...]:
        return self.price_variants or ()


class _Provider(msgspec.Struct, frozen=True):
    id: str
    models: tuple[_Model, ...]


def import_genai_prices(document: Any, *, provider: str | None = None) -> PriceList:
    """The programs of all models, or of one provider, in the order of the list; a model is ``provider/model``.

    ``document`` is the decoded JSON with its numbers as int and Decimal. Raises ValueError when it is another document.
    """
    listed = document.get("providers", document) if isinstance(document, dict) else document
    try:
        providers = msgspec.convert(listed, tuple[_Provider, ...])
    except msgspec.ValidationError as error:
        raise ValueError(f"this is not the price list of genai-prices: {error}") from None
    models = {f"{each.id}/{model.id}": (each.id, model) for each in providers for model in each.models}
    ids = program_ids(models)
    programs: list[ImportedProgram] = []
    unpriced: list[str] = []
    not_expressed: list[NotExpressed] = []
    for name, (provider_id, model) in models.items():
        if provider not in (None, provider_id):
            continue
        if not any(each.prices for each in model.conditional_prices()):
            unpriced.append(name)
            continue
        programs += _programs(name, ids[name], model)
        not_expressed += _left_out(name, model)
    return PriceList(programs=tuple(programs), unpriced=tuple(unpriced), not_expressed=tuple(not_expressed))


def _programs(name: str, id: str, model: _Model) -> Iterator[ImportedProgram]:
    """One program for each time from which the prices differ."""
    before: list[Charge] = []
    for start in _beginnings(model):
        charges = _charges(name, model, start or date.min)
        if charges and charges != before:
            yield program(
                name,
                id,
                charges,
                description=f"{name}, as genai-prices lists it{f' from {start}' if start else ''}",
                texts=_texts(model),
                optional=_OPTIONAL,
                effective_from=start,
            )
            before = charges


def _beginnings(model: _Model) -> list[date | None]:
    constraints = [each.constraint for each in model.conditional_prices()]
    constraints += [each.constraint for each in model.variants()]
    return [None, *sorted({each.start_date for each in constraints if each is not None and each.start_date})]


def _charges(name: str, model: _Model, day: date) -> list[Charge]:
    resolved = list(_resolved(model, day))
    parts = [part for field, part in _TOKEN_PRICES.items() if any(field in prices for _, prices in resolved)]
    rows = [row for when, prices in resolved for row in _rows(when, prices, parts)]
    return [*(token_charges(rows) if rows[0].prices else []), *_unit_charges(name, resolved)]


def _resolved(model: _Model, day: date) -> Iterator[tuple[tuple[str, ...], _Prices]]:
    """The prices of a day in each case, the special ones first."""
    variants = [each for each in model.variants() if _has_begun(each.constraint, day)]
    for chosen in product(*([*values, None] for values in _choices(model).values())):
        wanted = [each for each in chosen if each is not None]
        overrides: _Prices = {}
        for variant in variants:
            if all(_named(*each) in wanted for each in variant.when.items()):
                overrides = variant.prices | overrides
        when = tuple(f"{key} == '{value}'" for key, value in wanted)
        for hours, prices in _by_hour(model, day):
            yield (*when, *hours), prices | overrides


def _choices(model: _Model) -> dict[str, list[tuple[str, str]]]:
    choices: dict[str, list[tuple[str, str]]] = {}
    for variant in model.variants():
        for key, value in variant.when.items():
            named = _named(key, value)
            if value not in _SAME_AS_NONE and named not in choices.setdefault(named[0], []):
                choices[named[0]].append(named)
    return choices


def _named(key: str, value: str) -> tuple[str, str]:
    return _RENAMED.get((key, value), (key, value))


def _texts(model: _Model) -> dict[str, list[str]]:
    return {key: [_DEFAULTS.get(key, ""), *(value for _, value in pairs)] for key, pairs in _choices(model).items()}


def _by_hour(model: _Model, day: date) -> Iterator[tuple[tuple[str, ...], _Prices]]:
    """The prices of a day by the hour: the last that holds, and else the first."""
    listed = model.conditional_prices()
    for each in reversed(listed):
        if not _has_begun(each.constraint, day):
            continue
        hours = _hours(each.constraint)
        yield ((any_of([hours]),) if hours else ()), each.prices
        if not hours:
            return
    yield (), listed[0].prices


def _has_begun(constraint: _Constraint | None, day: date) -> bool:
    return constraint is None or constraint.start_date is None or constraint.start_date <= day


def _hours(constraint: _Constraint | None) -> str:
    if constraint is None or constraint.start_time is None or constraint.end_time is None:
        return ""
    start, end = (each.hour * 60 + each.minute for each in (constraint.start_time, constraint.end_time))
    return daily_hours(start, end)


def _rows(when: tuple[str, ...], prices: _Prices, parts: Sequence[str]) -> Iterator[Row]:
    """One row for each stretch of lengths. A part that this case does not price costs what its whole costs."""
    listed = {part: prices[field] for field, part in _TOKEN_PRICES.items() if field in prices}
    for part in parts:
        if part not in listed:
            listed[part] = listed[next_wholes(part, listed)[0]]
    starts = {tier.start for price in listed.values() if isinstance(price, _Tiered) for tier in price.tiers}
    for start in sorted({0, *starts}):
        yield Row(when, start, {part: _price_above(listed[part], start) for part in parts})


def _price_above(price: Decimal | _Tiered, start: int) -> Decimal:
    if isinstance(price, Decimal):
        return price
    reached = [tier for tier in price.tiers if tier.start <= start]
    return max(reached, key=lambda tier: tier.start).price if reached else price.base


def _unit_charges(name: str, resolved: _Resolved) -> Iterator[Charge]:
    """Charges of what is no token; a special case's price stands before the common one."""
    *special, (_, common) = resolved
    fields = {meter: field for field, (_, meter, _) in _UNIT_PRICES.items() if field in common}
    for whole, parts in _UNITS_INSIDE.items():
        for part in parts:
            if whole in fields and part in fields and _always_cost_the_same(fields[whole], fields[part], resolved):
                del fields[part]
    for meter, field in fields.items():
        line, _, per = _UNIT_PRICES[field]
        inside = [part for part in _UNITS_INSIDE.get(meter, ()) if part in fields]
        differing = [(" and ".join(when), prices[field]) for when, prices in special if prices[field] != common[field]]
        cases = [(when, price) for when, price in differing if isinstance(price, Decimal)]
        price = common[field]
        if isinstance(price, Decimal):
            counted = _AT_LEAST_TEN_SECONDS if name in _GROQ_WHISPER else " - ".join([meter, *inside])
            yield unit_charge(line, counted, price, per=per, cases=cases)


def _always_cost_the_same(field: str, other: str, resolved: _Resolved) -> bool:
    return all(prices.get(field) == prices.get(other) for _, prices in resolved)


def _left_out(name: str, model: _Model) -> Iterator[NotExpressed]:
    known = _TOKEN_PRICES.keys() | _UNIT_PRICES.keys()
    listed = [*(each.prices for each in model.conditional_prices()), *(each.prices for each in model.variants())]
    for field in dict.fromkeys(field for prices in listed for field in prices if field not in known):
        yield NotExpressed(model=name, what=field, reason="nothing says what it counts")
