"""What a token costs by LiteLLM's price list, in every case that the list tells apart.

Read as LiteLLM's own calculator reads it (1.109.1, ``litellm_core_utils/llm_cost_calc/utils.py`` and
``cost_calculator.py``): a service tier is a suffix of the field and falls back to the field without it; a length is an
infix (``_above_200k_tokens``) that changes the price of the whole request when the prompt is longer; a batch pays half
where no batch price is listed; what has no price costs what its whole costs.
"""

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import product
from typing import Any

import msgspec

from pricing.importers.off_peak import off_peak_condition
from pricing.importers.rate_table import TOKENS_PER_PRICE, Row

Entry = Mapping[str, Any]

INPUT = "input_cost_per_token"
OUTPUT = "output_cost_per_token"
READ = "cache_read_input_token_cost"
EXPLICIT_READ = "explicit_cache_read_input_token_cost"
WRITE = "cache_creation_input_token_cost"
WRITE_1H = "cache_creation_input_token_cost_above_1hr"
WRITE_12H = "cache_creation_input_token_cost_above_12hr"
READ_AUDIO = "cache_read_input_audio_token_cost"
READ_IMAGE = "cache_read_input_image_token_cost"
REASONING = "output_cost_per_reasoning_token"
OUTPUT_IMAGE = "output_cost_per_image_token"

#: Fields with the price of a part that has one price for prompts of every length → the part.
MODALITIES = {
    "input_cost_per_audio_token": "input_audio_tokens",
    "input_cost_per_image_token": "input_image_tokens",
    "input_cost_per_video_token": "input_video_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    OUTPUT_IMAGE: "output_image_tokens",
    "output_cost_per_video_token": "output_video_tokens",
}

#: Value of ``service_tier`` → the suffix of its fields.
SERVICE_TIERS = {
    "batch": "_batches",
    "flex": "_flex",
    "balanced": "_balanced",
    "priority": "_priority",
    "ultrafast": "_ultrafast",
}
STANDARD = "standard"

_FIELDS = (
    INPUT,
    OUTPUT,
    READ,
    EXPLICIT_READ,
    WRITE,
    WRITE_1H,
    WRITE_12H,
    READ_AUDIO,
    READ_IMAGE,
    REASONING,
    *MODALITIES,
)
_SUFFIX = f"(?P<suffix>{'|'.join(SERVICE_TIERS.values())})?"
_FIELD = re.compile(rf"(?P<field>{'|'.join(_FIELDS)})(?:_above_(?P<length>\d+k?)_tokens)?{_SUFFIX}")

#: Fireworks sells reads from the cache for half of the input price where its entry names no other.
_FIREWORKS_READ = Decimal("0.5")

_HALF = Decimal("0.5")

#: xAI's longer price begins with the length itself, everybody else's behind it.
_INCLUSIVE_PROVIDERS = ("xai",)


class Surcharge(msgspec.Struct, frozen=True):
    """All tokens cost ``factor`` times as much when the text ``key`` is ``value``."""

    key: str
    default: str
    value: str
    factor: Decimal


def is_token_field(field: str) -> bool:
    return _FIELD.fullmatch(field) is not None


def token_rows(entry: Entry) -> list[Row]:
    """The table of the entry's token prices; empty if it has none."""
    services = [service for service, suffix in SERVICE_TIERS.items() if any(f.endswith(suffix) for f in _named(entry))]
    rows = [row for service in (*services, STANDARD) for row in _rows_of_service(entry, service)]
    return list(_surcharged([row for row in rows if row.prices], surcharges(entry)))


def texts(entry: Entry) -> dict[str, list[str]]:
    """The text keys by which the entry's prices differ, with their values, the default first."""
    services = [service for service, suffix in SERVICE_TIERS.items() if any(f.endswith(suffix) for f in _named(entry))]
    texts = {"service_tier": [STANDARD, *services], "cache_type": ["implicit", "explicit"]}
    for each in surcharges(entry):
        texts.setdefault(each.key, [each.default]).append(each.value)
    return texts


def surcharges(entry: Entry) -> list[Surcharge]:
    """What makes all tokens of the entry dearer."""
    found = [
        Surcharge("data_residency", "global", region, Decimal(factor))
        for region in ("eu", "us")
        if (factor := entry.get(f"regional_processing_uplift_multiplier_{region}"))
    ]
    if factor := entry.get("regional_endpoint_uplift_multiplier"):
        found.append(Surcharge("endpoint", "global", "regional", Decimal(factor)))
    if entry.get("litellm_provider") in ("anthropic", "bedrock"):
        for name, factor in (entry.get("provider_specific_entry") or {}).items():
            if isinstance(factor, int | Decimal):
                key, default = ("speed", STANDARD) if name == "fast" else ("inference_geo", "global")
                found.append(Surcharge(key, default, name, Decimal(factor)))
    return found


def _named(entry: Entry) -> list[str]:
    return [field for field in entry if is_token_field(field)]


def _surcharged(rows: list[Row], surcharges: list[Surcharge]) -> Iterator[Row]:
    """Every row in every combination of the surcharges, the special ones first."""
    by_key: dict[str, list[Surcharge | None]] = {}
    for each in surcharges:
        by_key.setdefault(each.key, []).append(each)
    for choice in product(*([*each, None] for each in by_key.values())):
        chosen = [each for each in choice if each is not None]
        factor = Decimal(1)
        for each in chosen:
            factor *= each.factor
        when = tuple(f"{each.key} == '{each.value}'" for each in chosen)
        for row in rows:
            prices = {part: price * factor for part, price in row.prices.items()}
            yield Row((*when, *row.when), row.above, prices)


def _rows_of_service(entry: Entry, service: str) -> Iterator[Row]:
    when = () if service == STANDARD else (f"service_tier == '{service}'",)
    if service == "batch":
        for length, crossed in _lengths(entry, "_batches"):
            yield Row(when, length, _millions(_Batch(entry, crossed).prices()))
        return
    off_peak = off_peak_condition(entry.get("off_peak_pricing"))
    is_explicit = EXPLICIT_READ in entry
    for explicit, off in product((True, False) if is_explicit else (False,), (True, False) if off_peak else (False,)):
        conditions = [*when, *(["cache_type == 'explicit'"] if explicit else []), *([off_peak] if off else [])]
        cheaper = entry["off_peak_pricing"] if off else {}
        for length, prices in _by_length(entry, SERVICE_TIERS.get(service, ""), cheaper, explicit):
            yield Row(tuple(c for c in conditions if c), length, _millions(prices))


def _millions(prices: dict[str, Decimal | None]) -> dict[str, Decimal]:
    return {part: price * TOKENS_PER_PRICE for part, price in prices.items() if price is not None}


def _by_length(
    entry: Entry, suffix: str, off_peak: Entry, explicit: bool
) -> Iterator[tuple[int, dict[str, Decimal | None]]]:
    tiers = sorted((tier for tier in entry.get("tiered_pricing") or () if INPUT in tier), key=lambda t: t["range"][0])
    for tier in tiers:
        yield int(tier["range"][0]), _Tier(entry, tier, suffix, off_peak, explicit).prices()
    if not tiers:
        for length, crossed in _lengths(entry, suffix):
            yield length, _Standard(entry, crossed, suffix, off_peak, explicit).prices()


def _lengths(entry: Entry, suffix: str) -> Iterator[tuple[int, list[str]]]:
    """For each stretch of prompt lengths where it begins, and the lengths (as the fields write them) it exceeds."""
    matches = [_FIELD.fullmatch(field) for field, price in entry.items() if price is not None]
    suffixes = ("_batches",) if suffix == "_batches" else (None, suffix or None)
    written = {m["length"] for m in matches if m is not None and m["length"] and m["suffix"] in suffixes}
    rising = sorted(written, key=_tokens)
    inclusive = entry.get("litellm_provider") in _INCLUSIVE_PROVIDERS
    yield 0, []
    for count, length in enumerate(rising, start=1):
        yield _tokens(length) - inclusive, rising[:count]


def _tokens(length: str) -> int:
    return int(length.removesuffix("k")) * (1000 if length.endswith("k") else 1)


def _price(table: Entry, *fields: str) -> Decimal | None:
    """The price of the first of the fields that the table has."""
    price = next((table[field] for field in fields if table.get(field) is not None), None)
    return None if price is None else Decimal(price)


def _either(*prices: Decimal | None) -> Decimal | None:
    return next((price for price in prices if price is not None), None)


class _Standard:
    """The prices of one service tier but the batch, where the prompt is longer than all of ``crossed``."""

    def __init__(self, entry: Entry, crossed: list[str], suffix: str, off_peak: Entry, explicit: bool) -> None:
        self.entry, self.suffix, self.off_peak, self.explicit = entry, suffix, off_peak, explicit
        self.input = self._long(INPUT, crossed)
        self.output = self._long(OUTPUT, crossed)
        if not self.output and OUTPUT_IMAGE in entry:
            self.output = _price(entry, OUTPUT_IMAGE)
        self.read = self._long(READ, crossed, default=self._default_read())
        self.write = self._long(WRITE, crossed)
        self.writes = {field: self._long_write(field, crossed) for field in (WRITE_1H, WRITE_12H)}

    def prices(self) -> dict[str, Decimal | None]:
        """Part → price of one token, None where the entry prices neither the part nor a whole of it."""
        input = _either(_price(self.off_peak, INPUT), self.input)
        output = _either(_price(self.off_peak, OUTPUT), self.output)
        read = _either(_price(self.off_peak, READ), self.read, input)
        write = _either(_price(self.off_peak, WRITE), self.write, input)
        if self.explicit:
            read = _either(_price(self.off_peak, EXPLICIT_READ, READ), self._explicit_read())
        parts = {
            "input_tokens": input,
            "cached_input_tokens": read,
            "cache_write_input_tokens": write,
            "cache_write_1h_input_tokens": _either(self.writes[WRITE_1H], write),
            "cache_write_12h_input_tokens": _either(self.writes[WRITE_12H], write),
            "cached_input_audio_tokens": _either(self._flat(READ_AUDIO), read),
            "cached_input_image_tokens": _either(self._flat(READ_IMAGE), read),
            "cached_input_video_tokens": read,
            "output_tokens": output,
            "reasoning_tokens": _either(_price(self.off_peak, REASONING), self._reasoning(), output),
        }
        for field, part in MODALITIES.items():
            # LiteLLM prices what comes out at the field without suffix, whatever the service tier.
            listed = self._flat(field) if field.startswith("input") else _price(self.entry, field)
            parts[part] = _either(listed, input if field.startswith("input") else output)
        return parts

    def _default_read(self) -> Decimal | None:
        input = _price(self.entry, INPUT)
        is_fireworks = self.entry.get("litellm_provider") == "fireworks_ai"
        return input * _FIREWORKS_READ if is_fireworks and input is not None and READ not in self.entry else None

    def _explicit_read(self) -> Decimal | None:
        return self._flat(EXPLICIT_READ)

    def _flat(self, field: str) -> Decimal | None:
        return _price(self.entry, field + self.suffix, field)

    def _long(self, field: str, crossed: list[str], *, default: Decimal | None = None) -> Decimal | None:
        price = _either(self._flat(field), default)
        for length in crossed:
            price = _either(self._flat(f"{field}_above_{length}_tokens"), price)
        return price

    def _long_write(self, field: str, crossed: list[str]) -> Decimal | None:
        """Unlike the others, a service tier's price for long prompts comes before all that have no suffix."""
        chosen = field + self.suffix
        for length in crossed:
            longer = f"{field}_above_{length}_tokens{self.suffix}"
            chosen = longer if longer in self.entry else chosen
        return _price(self.entry, chosen, chosen.removesuffix(self.suffix))

    def _reasoning(self) -> Decimal | None:
        if self.entry.get("litellm_provider") in _INCLUSIVE_PROVIDERS:
            return None
        if self.suffix and REASONING + self.suffix not in self.entry and OUTPUT + self.suffix in self.entry:
            return None
        return self._flat(REASONING)


class _Tier(_Standard):
    """The prices of one range of ``tiered_pricing``. What the range does not name costs what its input costs."""

    def __init__(self, entry: Entry, tier: Entry, suffix: str, off_peak: Entry, explicit: bool) -> None:
        super().__init__(entry, [], suffix, off_peak, explicit)
        self.tier = tier
        self.input = _price(tier, INPUT)
        self.output = _either(_price(tier, OUTPUT), _price(entry, OUTPUT))
        self.read = _price(tier, READ)
        self.write = _price(tier, WRITE)
        self.writes = {field: _price(tier, field) for field in (WRITE_1H, WRITE_12H)}

    def _explicit_read(self) -> Decimal | None:
        return _price(self.tier, EXPLICIT_READ, READ, INPUT)

    def _reasoning(self) -> Decimal | None:
        return _either(_price(self.tier, REASONING, OUTPUT), super()._reasoning())


class _Batch:
    """The prices of a request in a batch."""

    def __init__(self, entry: Entry, crossed: list[str]) -> None:
        self.entry = entry
        self.crossed = crossed

    def prices(self) -> dict[str, Decimal | None]:
        """Part → price of one token, None where the entry prices neither the part nor a whole of it."""
        input = self._or_half(INPUT)
        output = _either(self._or_half(OUTPUT), self._or_half(OUTPUT_IMAGE))
        read = _either(self._long(READ), input)
        write = _either(self._long(WRITE), input)
        parts = {
            "input_tokens": input,
            "cached_input_tokens": read,
            "cache_write_input_tokens": write,
            "cache_write_1h_input_tokens": _either(self._long(WRITE_1H), write),
            "cache_write_12h_input_tokens": _either(self._long(WRITE_12H), write),
            "cached_input_audio_tokens": _either(_price(self.entry, READ_AUDIO + "_batches"), read),
            "cached_input_image_tokens": read,
            "cached_input_video_tokens": read,
            "output_tokens": output,
            "reasoning_tokens": output,
        }
        for field, part in MODALITIES.items():
            whole = input if field.startswith("input") else output
            parts[part] = _either(_price(self.entry, field + "_batches"), whole)
        if OUTPUT_IMAGE in self.entry:
            parts["output_image_tokens"] = self._or_half(OUTPUT_IMAGE)
        return parts

    def _long(self, field: str) -> Decimal | None:
        longer = (f"{field}_above_{length}_tokens_batches" for length in reversed(self.crossed))
        return _price(self.entry, *longer, field + "_batches")

    def _or_half(self, field: str) -> Decimal | None:
        standard = _price(self.entry, field)
        return _either(self._long(field), None if standard is None else standard * _HALF)
