"""What LiteLLM's price list sells by anything but tokens: images, seconds, characters, pages, searches.

One field can mean two things: ``input_cost_per_image`` of an image generator is the price of an image made, of a chat
model that of an image in the prompt. The mode of the entry decides, as in LiteLLM's calculators.
"""

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import msgspec

from pricing.importers.litellm_rates import SERVICE_TIERS, STANDARD, Entry, is_token_field
from pricing.importers.rate_table import unit_charge
from pricing.language.definition import Charge

#: A model that has prices for tokens and for a unit sells the unit when its backend counted no tokens.
WITHOUT_TOKENS = "input_tokens == 0 and output_tokens == 0"

#: Ways to count a prompt other than by its tokens: field → name, usage key. Embeddings are charged for both.
_INSTEAD_OF_TOKENS = {
    "input_cost_per_image": ("images in the prompt", "input_images"),
    "input_cost_per_video_per_second": ("video in the prompt", "input_video_seconds"),
    "input_cost_per_audio_per_second": ("audio in the prompt", "input_audio_seconds"),
}

#: What comes on top of tokens: field → name, usage key.
_ADDED = {
    "input_cost_per_query": ("queries", "queries"),
    "input_cost_per_text_message": ("text messages", "text_messages"),
    "citation_cost_per_token": ("citations", "citation_tokens"),
    "code_interpreter_cost_per_session": ("code interpreter", "code_interpreter_sessions"),
}

#: Why a price is left out, by the field, where it is no oversight.
_REASONS = (
    (r".*_decisions", "it prices another operation of the same model"),
    (r".*_interval", "usage does not say at what interval a video was sampled"),
    (r"(in|out)put_cost_per_character.*", "the model is charged by tokens; characters count the same text again"),
    (r"output_cost_per_(image|pixel|second).*", "another unit for the output that is charged already"),
    (r"(input_)?cost_per_(image|pixel|second|\w+_per_second)", "another unit for what is charged already"),
    (r"cache_creation_input_audio_token_cost", "usage does not tell written audio tokens from other written tokens"),
)

_SECONDS = ("cost_per_second", "input_cost_per_second", "output_cost_per_second")
_IMAGE_OF_SIZE = re.compile(r"output_cost_per_image_(?!token)(\w[\w.]*)")
_SECOND_OF_RESOLUTION = re.compile(r"output_cost_per_second_(\w+)")


class _Unit(msgspec.Struct, frozen=True):
    """A charge, the fields it says, and the usage keys that need not be there."""

    charge: Charge
    fields: tuple[str, ...]
    optional: tuple[str, ...] = ()


def unit_charges(entry: Entry) -> list[Charge]:
    """The charges for all that is not tokens."""
    return [unit.charge for unit in _units(entry)]


def has_token_prices(entry: Entry) -> bool:
    """Whether a token costs anything. A model that is sold by the image is often listed with tokens at 0."""
    tiers = entry.get("tiered_pricing") or ()
    return any(is_token_field(field) and price for prices in (entry, *tiers) for field, price in prices.items())


def texts(entry: Entry) -> dict[str, list[str]]:
    """The text keys that the charges read, with their values, the default first."""
    if not has_token_prices(entry) and any(field.endswith("_batches") for field in entry):
        return {"service_tier": [STANDARD, "batch"]}
    return {"search_context_size": ["medium", "low", "high"]}


def optional_keys(entry: Entry) -> set[str]:
    units = list(_units(entry))
    optional = {key for unit in units for key in unit.optional}
    if any(unit.charge.when is not None for unit in units):
        optional |= {"input_tokens", "output_tokens"}
    is_only = len(optional) == 1 and len(units) == 1 and not entry.get("input_cost_per_token")
    return set() if is_only else optional


def reason_left_out(entry: Entry, field: str) -> str | None:
    """Why no charge says the price of the field; None when one does, or when the price is 0."""
    if not entry[field] or field in ("tiered_pricing", "off_peak_pricing"):
        return None
    if any(field in unit.fields for unit in _units(entry)):
        return None
    known = (reason for pattern, reason in _REASONS if re.fullmatch(pattern, field))
    return next(known, "nothing says what it counts")


def _units(entry: Entry) -> Iterator[_Unit]:
    yield from _SOLD.get(entry.get("mode"), _without_tokens)(entry)
    yield from _added(entry)
    yield from _per_request(entry)
    yield from _searches(entry)


def _added(entry: Entry) -> Iterator[_Unit]:
    mode = entry.get("mode")
    added = _ADDED
    if mode == "embedding" or (mode not in _SOLD and not entry.get("input_cost_per_token")):
        added = _INSTEAD_OF_TOKENS | _ADDED
    if mode in ("search", "rerank", "vector_store"):
        added = {}
    for field, (name, key) in added.items():
        if price := _price(entry, field):
            yield _Unit(unit_charge(name, key, price), (field,), (key,))


def _per_request(entry: Entry) -> Iterator[_Unit]:
    if price := _price(entry, "input_cost_per_request"):
        yield _Unit(unit_charge("request", "1", price), ("input_cost_per_request",))


def _searches(entry: Entry) -> Iterator[_Unit]:
    """Searches the model makes. Gemini's before 3 are charged once for a prompt, however many it made."""
    is_google = "gemini" in entry.get("litellm_provider", "") or "vertex_ai-language" in entry["litellm_provider"]
    once = is_google and entry.get("web_search_billing_unit") != "per_query"
    by_size = entry.get("search_context_cost_per_query")
    if by_size:
        sizes = {size: Decimal(by_size[f"search_context_size_{size}"]) for size in ("low", "medium", "high")}
        special = [(f"search_context_size == '{size}'", sizes[size]) for size in ("low", "high")]
        cases = special if len(set(sizes.values())) > 1 else []
        meter = "min(web_searches, 1)" if once else "web_searches"
        charge = unit_charge("web search", meter, sizes["medium"], cases=cases)
        yield _Unit(charge, ("search_context_cost_per_query",), ("web_searches",))
    if price := _price(entry, "google_maps_grounding_cost_per_query"):
        meter = "min(map_searches, 1)" if once else "map_searches"
        charge = unit_charge("map search", meter, price)
        yield _Unit(charge, ("google_maps_grounding_cost_per_query",), ("map_searches",))


def _price(entry: Entry, *fields: str) -> Decimal | None:
    price = next((entry[field] for field in fields if entry.get(field) is not None), None)
    return None if price is None else Decimal(price)


def _sold_unit(entry: Entry, name: str, key: str, *fields: str, cases: list[tuple[str, Decimal]]) -> Iterator[_Unit]:
    """The first of the fields that is there, as the price of what the model makes. Others may repeat it."""
    price = _price(entry, *fields)
    if price is not None or cases:
        when = WITHOUT_TOKENS if has_token_prices(entry) else None
        said = (field for field in fields if entry.get(field) == price)
        yield _Unit(unit_charge(name, key, price, when=when, cases=cases), tuple(said))


def _without_tokens(entry: Entry) -> Iterator[_Unit]:
    """Models of text on rented hardware, sessions of speech, and old models that count characters."""
    if not has_token_prices(entry):
        yield from _sold_unit(entry, "seconds", "seconds", *_SECONDS, cases=[])
        yield from _sold_unit(entry, "input", "input_characters", "input_cost_per_character", cases=[])
        yield from _sold_unit(entry, "output", "output_characters", "output_cost_per_character", cases=[])


def _images(entry: Entry) -> Iterator[_Unit]:
    fields = [field for field in entry if _IMAGE_OF_SIZE.fullmatch(field)]
    cases = [(f"size == '{field.removeprefix('output_cost_per_image_')}'", Decimal(entry[field])) for field in fields]
    by_image = list(_sold_unit(entry, "images", "images", "output_cost_per_image", "input_cost_per_image", cases=cases))
    for unit in by_image:
        yield _Unit(unit.charge, (*unit.fields, *fields))
    if not by_image:
        yield from _sold_unit(entry, "pixels", "pixels", "input_cost_per_pixel", "output_cost_per_pixel", cases=[])


def _video(entry: Entry) -> Iterator[_Unit]:
    fields = [field for field in entry if _SECOND_OF_RESOLUTION.fullmatch(field)]
    cases = [
        (f"resolution == '{field.removeprefix('output_cost_per_second_')}'", Decimal(entry[field])) for field in fields
    ]
    whole = ("output_cost_per_video_per_second", "output_cost_per_second")
    for unit in _sold_unit(entry, "video", "video_seconds", *whole, cases=cases):
        yield _Unit(unit.charge, (*unit.fields, *fields))
    if price := _price(entry, "input_cost_per_image"):
        free = (entry.get("provider_specific_entry") or {}).get("minimax_free_input_images", 0)
        charge = unit_charge("images in the prompt", "input_images", price, free=free)
        yield _Unit(charge, ("input_cost_per_image",), ("input_images",))


def _speech(entry: Entry) -> Iterator[_Unit]:
    if entry.get("input_cost_per_character") is not None:
        yield from _sold_unit(entry, "speech", "characters", "input_cost_per_character", cases=[])
    else:
        yield from _sold_unit(entry, "music", "clips", "output_cost_per_image", cases=[])


def _transcription(entry: Entry) -> Iterator[_Unit]:
    fields = [field for field in ("output_cost_per_second", "input_cost_per_second") if entry.get(field)]
    yield from _sold_unit(entry, "audio", "audio_seconds", *fields, cases=[])


def _pages(entry: Entry) -> Iterator[_Unit]:
    """Annotating a page is charged besides reading it."""
    for name, key, field, optional in (
        ("pages", "pages", "ocr_cost_per_page", ()),
        ("annotated pages", "annotated_pages", "annotation_cost_per_page", ("annotated_pages",)),
        ("credits", "credits", "ocr_cost_per_credit", ()),
    ):
        batch = field + SERVICE_TIERS["batch"]
        cases = [("service_tier == 'batch'", Decimal(entry[batch]))] if batch in entry else []
        for unit in _sold_unit(entry, name, key, field, cases=cases):
            yield _Unit(unit.charge, (field, batch), optional)


def _policies(entry: Entry) -> Iterator[_Unit]:
    """A guardrail counts each of its policies by itself, under the policy's own name."""
    for policy, price in entry.get("guardrail_cost_per_unit", {}).items():
        yield _Unit(unit_charge(policy, policy, Decimal(price)), ("guardrail_cost_per_unit",), (policy,))


def _queries(entry: Entry) -> Iterator[_Unit]:
    tiers: list[dict[str, Any]] = entry.get("tiered_pricing") or []
    cases = [
        (f"max_results <= {tier['max_results_range'][1]}", Decimal(tier["input_cost_per_query"])) for tier in tiers
    ]
    yield from _sold_unit(entry, "queries", "queries", "input_cost_per_query", cases=cases)


_SOLD: dict[str | None, Callable[[Entry], Iterator[_Unit]]] = {
    None: _speech,
    "image_generation": _images,
    "image_edit": _images,
    "video_generation": _video,
    "audio_speech": _speech,
    "audio_transcription": _transcription,
    "ocr": _pages,
    "guardrail": _policies,
    "rerank": _queries,
    "search": _queries,
    "vector_store": _queries,
}
