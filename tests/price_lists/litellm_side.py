"""Prices usages with LiteLLM's own calculators. Runs where LiteLLM is installed: usages.json in, prices.json out."""

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import litellm
from litellm import _internal_context
from litellm.cost_calculator import (
    _video_input_image_cost,
    cost_per_token,
    default_image_cost_calculator,
    default_video_cost_calculator,
    ocr_batch_cost,
    ocr_cost,
    rerank_cost,
)
from litellm.litellm_core_utils.llm_cost_calc.tool_call_cost_tracking import StandardBuiltInToolCostTracking
from litellm.litellm_core_utils.llm_cost_calc.utils import CostCalculatorUtils, generic_cost_per_token
from litellm.llms import get_cost_for_web_search_request
from litellm.llms.base_llm.ocr.transformation import OCRResponse, OCRUsageInfo
from litellm.llms.bedrock.image_generation.cost_calculator import cost_calculator as bedrock_image_cost
from litellm.llms.gemini.cost_calculator import cost_per_google_maps_grounding_request
from litellm.search import search_provider_cost_per_query
from litellm.types.utils import (
    CacheCreationTokenDetails,
    CompletionTokensDetailsWrapper,
    ImageObject,
    ImageResponse,
    PromptTokensDetailsWrapper,
    Usage,
)

#: Our service tiers that are no ``service_tier`` there.
NO_TIER = ("standard", "batch")

IMAGE = ImageObject(url="")

#: Of images, as names of entries begin.
QUALITIES = ("low", "medium", "high", "standard", "hd")

#: What the list calls a provider, where the calculators call it otherwise.
PROVIDERS = {"bedrock_converse": "bedrock", "fireworks_ai-embedding-models": "fireworks_ai"}


def main(usages: str, prices: str) -> None:
    with open(usages) as file:
        requests = json.load(file)
    with open(prices, "w") as file:
        json.dump([[priced(request, price), priced(request, general_price)] for request in requests], file)


def priced(request: dict[str, Any], calculate: Callable[[str, dict[str, Any]], float]) -> float | str:
    """The price, or why there is none."""
    token = _internal_context._billing_time.set(datetime.fromisoformat(request["at"]))
    try:
        return calculate(request["model"], request["usage"])
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        _internal_context._billing_time.reset(token)


def general_price(model: str, used: dict[str, Any]) -> float:
    """What the calculator comes to that all providers share, which some providers' own stand in for."""
    tier = used.get("service_tier")
    cost = generic_cost_per_token(
        model=model,
        usage=usage_of(used),
        custom_llm_provider=provider_of(model),
        service_tier=None if tier in NO_TIER else tier,
    )
    return sum(cost)


def provider_of(model: str) -> str:
    listed = litellm.model_cost[model]["litellm_provider"]
    return PROVIDERS.get(listed, "vertex_ai" if listed.startswith("vertex_ai") else listed)


def price(model: str, used: dict[str, Any]) -> float:
    entry = litellm.model_cost[model]
    provider = provider_of(model)
    calculate = BY_MODE.get(entry.get("mode"))
    if calculate is not None and "input_tokens" not in used:
        return calculate(model, provider, used)
    return tokens_price(model, provider, used)


def tokens_price(model: str, provider: str, used: dict[str, Any]) -> float:
    usage = usage_of(used)
    tier = used.get("service_tier")
    cost = cost_per_token(
        model=model,
        prompt_characters=used.get("input_characters"),
        completion_characters=used.get("output_characters"),
        custom_llm_provider=provider,
        usage_object=usage,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        response_time_ms=used.get("seconds", 0) * 1000,
        service_tier=None if tier in NO_TIER else tier,
        call_type="retrieve_batch" if tier == "batch" else "completion",
        data_residency=None if used.get("data_residency") in (None, "global") else used["data_residency"],
        vertex_location="us-east5" if used.get("endpoint") == "regional" else "global",
    )
    return sum(cost) + searches_on_top(model, provider, used, usage)


def searches_on_top(model: str, provider: str, used: dict[str, Any], usage: Usage) -> float:
    """Some providers' searches are counted, the others' are a sum for one request that searches, which we count."""
    if not used.get("web_searches") and not used.get("map_searches"):
        return 0.0
    info = litellm.get_model_info(model=model, custom_llm_provider=provider)
    counted = get_cost_for_web_search_request(custom_llm_provider=provider, usage=usage, model_info=info)
    maps = cost_per_google_maps_grounding_request(usage, info) if used.get("map_searches") else 0.0
    if counted is not None:
        return counted + maps
    size = {"search_context_size": used.get("search_context_size", "medium")}
    return maps + used.get("web_searches", 0) * StandardBuiltInToolCostTracking.get_cost_for_web_search(size, info)


def usage_of(used: dict[str, Any]) -> Usage:
    """The usage as the calculators read it: parts inside their wholes, as ours."""
    prompt, completion = used.get("input_tokens", 0), used.get("output_tokens", 0)
    written = used.get("cache_write_input_tokens", 0)
    hour, half_day = used.get("cache_write_1h_input_tokens", 0), used.get("cache_write_12h_input_tokens", 0)
    details = PromptTokensDetailsWrapper(
        cached_tokens=used.get("cached_input_tokens", 0),
        cache_creation_tokens=written,
        cache_creation_token_details=CacheCreationTokenDetails(
            ephemeral_5m_input_tokens=written - hour - half_day,
            ephemeral_1h_input_tokens=hour,
            ephemeral_12h_input_tokens=half_day,
        ),
        audio_tokens=used.get("input_audio_tokens", 0),
        image_tokens=used.get("input_image_tokens", 0),
        video_tokens=used.get("input_video_tokens", 0),
        cached_tokens_details={
            "audio_tokens": used.get("cached_input_audio_tokens", 0),
            "image_tokens": used.get("cached_input_image_tokens", 0),
        },
        web_search_requests=used.get("web_searches", 0),
        google_maps_grounding_requests=used.get("map_searches", 0),
        **extras(used),
    )
    if used.get("cache_type") == "explicit":
        details.cache_type = "ephemeral"
    usage = Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=details,
        completion_tokens_details=CompletionTokensDetailsWrapper(
            reasoning_tokens=used.get("reasoning_tokens", 0),
            audio_tokens=used.get("output_audio_tokens", 0),
            image_tokens=used.get("output_image_tokens", 0),
            video_tokens=used.get("output_video_tokens", 0),
        ),
        server_tool_use={"web_search_requests": used.get("web_searches", 0)},
    )
    usage.inference_geo = used.get("inference_geo", "global")
    usage.speed = used.get("speed", "standard")
    if used.get("citation_tokens"):
        usage.citation_tokens = used["citation_tokens"]
    return usage


def extras(used: dict[str, Any]) -> dict[str, Any]:
    """Counts of anything but tokens. Images make the calculator look for text tokens by themselves."""
    named = {
        "image_count": used.get("input_images"),
        "video_length_seconds": used.get("input_video_seconds"),
        "audio_length_seconds": used.get("input_audio_seconds"),
        "query_count": used.get("queries"),
    }
    counts = {key: value for key, value in named.items() if value}
    if "image_count" in counts:
        parts = ("cached_input_tokens", "cache_write_input_tokens", "input_audio_tokens", "input_video_tokens")
        counts["text_tokens"] = used.get("input_tokens", 0) - sum(used.get(part, 0) for part in parts)
    return counts


def images_price(model: str, provider: str, used: dict[str, Any]) -> float:
    count = used.get("images", 1)
    if "pixels" in used:
        return default_image_cost_calculator(
            model=model, custom_llm_provider=provider, n=1, size=f"1-x-{used['pixels']}"
        )
    if provider == "bedrock" and litellm.model_cost[model]["mode"] == "image_edit":
        return default_image_cost_calculator(model=model, custom_llm_provider=provider, n=count)
    if provider == "openai" and "gpt-image" in model:
        *options, name = model.split("/")
        size = next((option for option in options if "-x-" in option), None)
        quality = next((option for option in options if option in QUALITIES), None)
        return default_image_cost_calculator(
            model=name, custom_llm_provider=provider, n=count, size=size, quality=quality
        )
    if provider == "bedrock" and model.count("/") == 2:
        size, steps, name = model.split("/")
        many = {"steps": 50 if steps == "50-steps" else 51}
        return bedrock_image_cost(name, ImageResponse(data=[IMAGE] * count), size, many)
    return CostCalculatorUtils.route_image_generation_cost_calculator(
        model=model,
        completion_response=ImageResponse(data=[IMAGE] * count),
        custom_llm_provider=provider,
        n=count,
        optional_params={"resolution": used["size"]} if "size" in used else None,
        call_type="image_generation",
    )


def video_price(model: str, provider: str, used: dict[str, Any]) -> float:
    entry = litellm.model_cost[model].get("provider_specific_entry") or {}
    images = max(used.get("input_images", 0) - entry.get("minimax_free_input_images", 0), 0)
    return _video_input_image_cost(
        model, provider, None, {"billable_input_image_count": images}
    ) + default_video_cost_calculator(
        model=model,
        duration_seconds=used["video_seconds"],
        custom_llm_provider=provider,
        video_resolution=used.get("resolution"),
    )


def speech_price(model: str, provider: str, used: dict[str, Any]) -> float:
    """A request makes one clip there; we count them."""
    price = cost_per_token(
        model=model, custom_llm_provider=provider, prompt_characters=used.get("characters"), call_type="speech"
    )
    return sum(price) * used.get("clips", 1)


def transcription_price(model: str, provider: str, used: dict[str, Any]) -> float:
    seconds = used["audio_seconds"]
    return sum(
        cost_per_token(
            model=model,
            custom_llm_provider=provider,
            call_type="transcription",
            audio_transcription_file_duration=seconds,
        )
    )


def pages_price(model: str, provider: str, used: dict[str, Any]) -> float:
    if used.get("service_tier") == "batch":
        info = OCRUsageInfo(pages_processed=used.get("pages"), pages_processed_annotation=used.get("annotated_pages"))
        return sum(ocr_batch_cost(model, provider, info))
    info = OCRUsageInfo(pages_processed=used.get("pages"), pages_processed_annotation=used.get("annotated_pages"))
    if "credits" in used:
        info.credits = used["credits"]
    return sum(ocr_cost(model, provider, OCRResponse(pages=[], model=model, usage_info=info)))


def queries_price(model: str, provider: str, used: dict[str, Any]) -> float:
    return sum(rerank_cost(model=model, custom_llm_provider=provider, billed_units={"search_units": used["queries"]}))


def searches_price(model: str, provider: str, used: dict[str, Any]) -> float:
    params = {"max_results": used["max_results"]} if "max_results" in used else None
    return sum(search_provider_cost_per_query(model, provider, used["queries"], params))


BY_MODE = {
    "image_generation": images_price,
    "image_edit": images_price,
    "video_generation": video_price,
    "audio_speech": speech_price,
    "audio_transcription": transcription_price,
    "ocr": pages_price,
    "rerank": queries_price,
    "search": searches_price,
    None: speech_price,
}

if __name__ == "__main__":
    with suppress(AttributeError):
        litellm.suppress_debug_info = True
    main(*sys.argv[1:])
