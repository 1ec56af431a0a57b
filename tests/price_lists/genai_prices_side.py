"""Prices usages with genai-prices' own calculator, and writes its list as JSON. Runs where genai-prices is installed.

The package holds its list as Python; the JSON that the project publishes has the same names.
"""

import dataclasses
import json
import sys
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from genai_prices.data import providers
from genai_prices.types import ModelInfo, ModelPrice, Usage

#: Our keys → theirs, where they differ.
USAGE_KEYS = {
    "cached_input_tokens": "cache_read_tokens",
    "cache_write_input_tokens": "cache_write_tokens",
    "cache_write_1h_input_tokens": "cache_write_1h_tokens",
    "cached_input_audio_tokens": "cache_audio_read_tokens",
    "cached_input_image_tokens": "cache_image_read_tokens",
    "reasoning_tokens": "output_reasoning_tokens",
    "characters": "input_characters",
    "text_messages": "input_text_messages",
    "pixels": "input_pixels",
    "pages": "input_document_pages",
    "annotated_pages": "input_annotated_document_pages",
    "queries": "rerank_searches",
}

#: Our keys that choose a variant.
CONTEXT = ("service_tier", "speed", "route", "search_type")
CLOCK = ("hour", "minute", "weekday")


def main(command: str, *files: str) -> None:
    if command == "list":
        with open(files[0], "w") as file:
            json.dump([{"id": each.id, "models": [listed(model) for model in each.models]} for each in providers], file)
        return
    with open(files[0]) as file:
        requests = json.load(file)
    with open(files[1], "w") as file:
        json.dump([[priced(request)] for request in requests], file)


def listed(model: ModelInfo) -> dict[str, Any]:
    variants = {"price_variants": plain(model.price_variants)} if model.price_variants else {}
    return {"id": model.id, "prices": plain(model.prices), **variants}


def plain(value: Any) -> Any:
    match value:
        case Decimal():
            return float(value)  # its shortest digits are those of the list
        case date() | time():
            return value.isoformat()
        case list() | tuple():
            return [plain(each) for each in value]
        case dict():
            return {key: plain(each) for key, each in value.items()}
        case ModelPrice():
            return {key: plain(each) for key, each in vars(value).items() if each is not None}
        case _ if dataclasses.is_dataclass(value):
            fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
            return {key: plain(each) for key, each in fields.items() if each is not None}
        case _:
            return value


MODELS = {f"{provider.id}/{model.id}": (provider, model) for provider in providers for model in provider.models}


def priced(request: dict[str, Any]) -> str:
    """The price as a decimal, or why there is none."""
    provider, model = MODELS[request["model"]]
    used = request["usage"]
    counts = {USAGE_KEYS.get(key, key): value for key, value in used.items() if key not in (*CONTEXT, *CLOCK)}
    try:
        calculated = model.calc_price(
            Usage(**counts),
            provider,
            genai_request_timestamp=datetime.fromisoformat(request["at"]),
            price_context=context_of(used) or None,
        )
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    return str(calculated.total_price)


def context_of(used: dict[str, Any]) -> dict[str, str]:
    context = {key: used[key] for key in CONTEXT if used.get(key) not in (None, "standard", "any")}
    if context.get("service_tier") == "batch":
        context["processing"] = context.pop("service_tier")
    return context


if __name__ == "__main__":
    main(*sys.argv[1:])
