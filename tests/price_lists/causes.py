"""Why LiteLLM's calculator comes to another price than its own list, as docs/importing-prices.md explains."""

from collections.abc import Mapping
from typing import Any

#: Providers whose calculators LiteLLM does not tell the service tier.
WITHOUT_SERVICE_TIER = ("deepseek", "fireworks_ai", "tencent", "xai")

ELSEWHERE = ("code_interpreter_cost_per_session", "guardrail_cost_per_unit")


def cause_of(model: str, entries: Mapping[str, Any], usage: Mapping[str, Any], *, is_general: bool) -> str | None:
    """The cause of a difference to LiteLLM's calculator, None if none is known.

    ``is_general`` says that ours is what the calculator comes to that all providers share, so that it is the
    provider's own that reads the list otherwise.
    """
    entry = entries[model]
    provider = entry["litellm_provider"]
    service_tier = usage.get("service_tier", "standard")
    if any(field in entry for field in ELSEWHERE) or (entry.get("mode") == "realtime" and "seconds" in usage):
        return "charged outside of the calculators of requests"
    if provider == "perplexity" and (is_general or sells_searches(entry)):
        return "Perplexity's calculator knows one price of input and one of output, and small searches"
    if provider == "parallel_ai":
        return "Parallel's calculator has prices of its own"
    if other_entry(model, provider, entries):
        return "the calculator finds another entry by the model's name"
    if "input_images" in usage and not any(entry.get(f"{way}put_cost_per_token") for way in ("in", "out")):
        return "a model of text without a price for tokens is free there"
    if is_general and provider in WITHOUT_SERVICE_TIER and service_tier not in ("standard", "batch"):
        return "the provider's calculator is not told the service tier"
    if service_tier == "standard" and "input_cost_per_token_priority" in entry and "input_cost_per_token" not in entry:
        return "a service tier without a price is free there, and refused here"
    if service_tier == "batch" and (usage.get("inference_geo") == "us" or usage.get("speed") == "fast"):
        return "a batch is not told the region and the speed"
    if usage.get("cached_input_image_tokens") and "cache_read_input_image_token_cost" in entry:
        return "cached images cost what cached text costs"
    if service_tier == "batch" and "output_cost_per_image_token" in entry and "output_cost_per_token" not in entry:
        return "a batch gives away output that is not marked as an image"
    return None


def sells_searches(entry: Mapping[str, Any]) -> bool:
    return "search_context_cost_per_query" in entry or "input_cost_per_request" in entry


def other_entry(model: str, provider: str, entries: Mapping[str, Any]) -> bool:
    """Whether the list has the model under its provider's name too, with other prices."""
    named = {"bedrock_converse": "bedrock"}.get(provider, "vertex_ai" if provider.startswith("vertex_ai") else provider)
    other = entries.get(f"{named}/{model}")
    return other is not None and prices_of(other) != prices_of(entries[model])


def prices_of(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {field: price for field, price in entry.items() if "cost" in field}
