"""Chat completions: bounding a request before it is forwarded, and reading the usage of its answer.

The bound is sound, not close: a byte-level tokenizer never makes more tokens than there are bytes, normalisation before
it makes them at most three times as many, the chat template adds at most what the model's configuration says, and a
backend never takes a prompt beyond the context. What a template writes out in its own way (images, tools, schemas) is
bounded by the whole context. A field that we do not know is refused: it might make the answer longer than its limit.
"""

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
import structlog

from inference_proxy.metrics import TALLY, UNKNOWN_METERS
from inference_proxy.models import Model, ModelCatalog
from inference_proxy.prepared import Prepared
from inference_proxy.usage import UsageUnreadable, count, details, part_of
from pricing import Span, Usage
from wire import ApiError
from wire.body import decode_json, invalid

#: Fields that can make neither the prompt longer than their own bytes nor the answer longer than its limit.
PLAIN_FIELDS = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "temperature",
        "top_p", "top_k", "min_p", "stop", "seed", "random_seed", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "parallel_tool_calls", "user", "metadata",
        "store", "service_tier", "safe_prompt", "reasoning_effort", "verbosity", "min_tokens", "ignore_eos",
        "stop_token_ids", "include_stop_str_in_output", "skip_special_tokens", "spaces_between_special_tokens",
        "safety_identifier", "prompt_cache_key", "priority", "request_id", "include_reasoning", "separate_reasoning",
    }
)  # fmt: skip

#: Fields that a template or a decoder writes out in its own way, so that their bytes say nothing of their tokens.
EXPANDING_FIELDS = frozenset(
    {
        "tools", "tool_choice", "functions", "function_call", "response_format", "prediction", "structured_outputs",
        "guided_json", "guided_regex", "guided_choice", "guided_grammar", "chat_template", "chat_template_kwargs",
        "documents", "mm_processor_kwargs", "add_generation_prompt", "continue_final_message", "add_special_tokens",
        "modalities", "audio", "web_search_options", "thinking", "reasoning",
    }
)  # fmt: skip

#: Of a message, what a template writes as it is, if at all.
_TEXT_FIELDS = frozenset({"role", "content", "name", "tool_call_id", "refusal", "reasoning", "reasoning_content"})

#: Normalisation to NFC, which some tokenizers begin with, makes UTF-8 at most three times as long (Unicode FAQ,
#: "Normalization", maximum expansion factors). ASCII, and so every escaped character, stays as it is.
NFC_EXPANSION = 3

#: Parts of the prompt and of the answer: what backends call them in the details, and what price programs do.
_PROMPT_PARTS = {
    "cached_tokens": "cached_input_tokens",
    "cache_write_tokens": "cache_write_input_tokens",
    "audio_tokens": "input_audio_tokens",
    "image_tokens": "input_image_tokens",
    "video_tokens": "input_video_tokens",
}
_ANSWER_PARTS = {
    "reasoning_tokens": "reasoning_tokens",
    "audio_tokens": "output_audio_tokens",
    "image_tokens": "output_image_tokens",
}

_PROMPT_KEYS = ("input_tokens", *_PROMPT_PARTS.values())
_ANSWER_KEYS = ("output_tokens", *_ANSWER_PARTS.values())

#: Details that no seller charges apart.
_PLAIN_PARTS = frozenset({"text_tokens", "accepted_prediction_tokens", "rejected_prediction_tokens"})

#: What a usage says besides its details.
_WHOLES = frozenset(
    {"prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details", "completion_tokens_details"}
)

#: How a model answered is known from its answer only.
_MODES = frozenset({"normal", "thinking"})

#: Fields that this gate decides for the backend.
_LIMITS = ("max_tokens", "max_completion_tokens")

Tokens = Annotated[int, msgspec.Meta(ge=1)]


class Part(msgspec.Struct):
    """One part of a message. Only its type matters here; the backend reads the rest."""

    type: str


class Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None


class StreamOptions(msgspec.Struct):
    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None


class ChatRequest(msgspec.Struct):
    """The fields of a chat completion that decide what it can cost. All others are passed on as they are."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


_log = structlog.get_logger(__name__)
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_named = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
_NULL = msgspec.Raw(b"null")


def prepare(body: bytes, models: ModelCatalog, *, at_most: int | None = None) -> Prepared:
    """The request as it may be forwarded, its answers limited to ``at_most`` tokens each, besides their other limits.

    Raises ApiError for a body that cannot be bounded.
    """
    request = decode_json(body, ChatRequest)
    try:
        body.decode()  # text in fields that are only passed on is not looked at otherwise
        fields = _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the typed request passed over it
        raise invalid(error) from error
    _refuse_unknown(fields)
    model = models.find(request.model)
    answers = request.n or 1
    # Backends give max_completion_tokens precedence where both are sent; so does the clamp.
    asked = request.max_completion_tokens or request.max_tokens or model.output_default
    output_limit = min(asked, model.output_limit, at_most or asked)
    stream = request.stream is True
    counts_along = stream and model.partial_usage == "continuous"
    options = request.stream_options or StreamOptions()
    prompt = Span(0, _prompt_bound(request, fields, body, model))
    output = Span(0, answers * output_limit)
    return Prepared(
        model=request.model,
        body=_forwarded(fields, output_limit, stream=stream, counts_along=counts_along),
        box={
            "mode": _MODES,
            **dict.fromkeys(_PROMPT_KEYS, prompt),
            **dict.fromkeys(_ANSWER_KEYS, output),
        },
        prompt_keys=_PROMPT_KEYS,
        answer_keys=_ANSWER_KEYS,
        stream=stream,
        wants_usage=options.include_usage is True,
        wants_all_usage=options.continuous_usage_stats is True,
        max_output_tokens=output_limit,
        answers=answers,
        slice_tokens=model.hold_slice_tokens if counts_along and model.hold_slice_tokens < output_limit else None,
        context_length=model.context_length,
        partial_usage=model.partial_usage,
        drain_s=model.drain_s,
    )


def read_usage(usage: Any) -> Usage:
    """A usage object of the OpenAI shape in our words. Raises UsageUnreadable.

    Parts that are not there are left out, but for cached and reasoning tokens. A part that we have no word for was not
    in the bound: it is charged as what it is a part of, and reported.
    """
    if not isinstance(usage, dict):
        raise UsageUnreadable("there is no usage")
    prompt = count(usage, "prompt_tokens")
    output = count(usage, "completion_tokens")
    read: dict[str, int | str] = {
        "input_tokens": prompt,
        "cached_input_tokens": 0,
        "output_tokens": output,
        "reasoning_tokens": 0,
    }
    _read_parts(read, details(usage, "prompt_tokens_details"), _PROMPT_PARTS, prompt)
    _read_parts(read, details(usage, "completion_tokens_details"), _ANSWER_PARTS, output)
    _report({name: value for name, value in usage.items() if name not in _WHOLES})
    read["mode"] = "thinking" if read["reasoning_tokens"] else "normal"
    return read


def _read_parts(read: dict[str, int | str], found: dict[str, Any], words: dict[str, str], whole: int) -> None:
    for name in found:
        if name in words:
            part = part_of(count(found, name, default=0), whole, name)
            if part:
                read[words[name]] = part
    _report({name: value for name, value in found.items() if name not in words and name not in _PLAIN_PARTS})


def _report(unknown: dict[str, Any]) -> None:
    for name, value in unknown.items():
        if type(value) is int and value:
            TALLY.count(UNKNOWN_METERS, name[:60])
            _log.warning("usage.unknown_part", part=name[:60])


def _refuse_unknown(fields: Iterable[str]) -> None:
    """What we do not know may make an answer longer than its limit, as ``n_predict`` does for llama.cpp."""
    for name in fields:
        if name not in PLAIN_FIELDS and name not in EXPANDING_FIELDS:
            raise ApiError("invalid_request", f"{name[:100]!r} is not a field of this operation", param=name[:100])


def _prompt_bound(request: ChatRequest, fields: dict[str, msgspec.Raw], body: bytes, model: Model) -> int:
    if not EXPANDING_FIELDS.isdisjoint(fields) or not all(map(_is_text, request.messages, _named(fields["messages"]))):
        return model.context_length
    text = len(body) if body.isascii() else NFC_EXPANSION * len(body)
    return min(text + model.template_tokens, model.context_length)


def _is_text(message: Message, names: dict[str, msgspec.Raw]) -> bool:
    """Whether a template writes no more of the message than its own bytes: it refers to nothing that is stored
    elsewhere, and has nothing in it that is written out in another way."""
    if any(name not in _TEXT_FIELDS and value != _NULL for name, value in names.items()):
        return False
    return not isinstance(message.content, list) or all(part.type == "text" for part in message.content)


def _forwarded(fields: dict[str, msgspec.Raw], output_limit: int, *, stream: bool, counts_along: bool) -> bytes:
    """The body for the backend: every field as it came, to the byte, but for the limit and the request for usage."""
    for name in _LIMITS:
        fields.pop(name, None)
    fields["max_tokens"] = msgspec.Raw(b"%d" % output_limit)
    if stream:
        asked = fields.get("stream_options", _NULL)
        options = {} if bytes(asked) == b"null" else _decode_fields(asked)
        options["include_usage"] = msgspec.Raw(b"true")
        if counts_along:
            options["continuous_usage_stats"] = msgspec.Raw(b"true")
        fields["stream_options"] = msgspec.Raw(_encode(options))
    else:
        fields.pop("stream_options", None)
    return _encode(fields)
