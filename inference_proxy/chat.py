"""Chat completions: bounding a request before it is forwarded, and reading the usage of its answer.

The bound is sound, not close: a byte-level tokenizer never makes more tokens than there are bytes, the chat template
adds at most what the model's configuration says, and a backend never takes a prompt beyond the context. Whatever
could make a prompt longer than its bytes (images, a template in the request, fields that we do not know) is bounded
by the whole context.
"""

from typing import Annotated, Any

import msgspec

from inference_proxy.models import Model, ModelCatalog
from inference_proxy.usage import UsageUnreadable, count, detail, part_of
from pricing import Span
from wire.body import decode_json, invalid

#: Fields that cannot make the prompt longer than their own bytes: those of the OpenAI and Mistral APIs.
PLAIN_FIELDS = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "n", "stream", "stream_options", "temperature",
        "top_p", "top_k", "min_p", "stop", "seed", "random_seed", "presence_penalty", "frequency_penalty",
        "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "response_format", "tools", "tool_choice",
        "parallel_tool_calls", "functions", "function_call", "user", "metadata", "store", "service_tier",
        "safe_prompt", "prediction", "reasoning_effort", "verbosity", "min_tokens", "ignore_eos", "stop_token_ids",
        "safety_identifier", "prompt_cache_key",
    }
)  # fmt: skip

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


_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode
_NULL = msgspec.Raw(b"null")


def prepare(body: bytes, models: ModelCatalog) -> dict[str, Any]:
    """The fields of a ``Prepared`` request. Raises ApiError for a body that cannot be bounded."""
    request = decode_json(body, ChatRequest)
    try:
        body.decode()  # text in fields that are only passed on is not looked at otherwise
        fields = _decode_fields(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # the typed request passed over it
        raise invalid(error) from error
    model = models.find(request.model)
    answers = request.n or 1
    # Backends give max_completion_tokens precedence where both are sent; so does the clamp.
    asked = request.max_completion_tokens or request.max_tokens or model.output_default
    output_limit = min(asked, model.output_limit)
    stream = request.stream is True
    options = request.stream_options or StreamOptions()
    return {
        "model": request.model,
        "body": _forwarded(fields, output_limit, stream=stream, continuous=model.continuous_usage),
        "box": {
            "input_tokens": Span(0, _prompt_bound(request, fields, len(body), model)),
            "cached_input_tokens": Span(0, _prompt_bound(request, fields, len(body), model)),
            "output_tokens": Span(0, answers * output_limit),
            "reasoning_tokens": Span(0, answers * output_limit),
        },
        "stream": stream,
        "wants_usage": options.include_usage is True,
        "wants_all_usage": options.continuous_usage_stats is True,
        "max_output_tokens": output_limit,
        "answers": answers,
    }


def read_usage(usage: Any) -> dict[str, Any]:
    """A usage object of the OpenAI shape in our words. Raises UsageUnreadable."""
    if not isinstance(usage, dict):
        raise UsageUnreadable("there is no usage")
    prompt = count(usage, "prompt_tokens")
    output = count(usage, "completion_tokens", default=0)
    cached = part_of(detail(usage, "prompt_tokens_details", "cached_tokens"), prompt, "cached_tokens")
    reasoning = part_of(detail(usage, "completion_tokens_details", "reasoning_tokens"), output, "reasoning_tokens")
    return {
        "input_tokens": prompt,
        "cached_input_tokens": cached,
        "output_tokens": output,
        "reasoning_tokens": reasoning,
    }


def _prompt_bound(request: ChatRequest, fields: dict[str, msgspec.Raw], body_bytes: int, model: Model) -> int:
    if not PLAIN_FIELDS.issuperset(fields) or not all(_is_text(message) for message in request.messages):
        return model.context_length
    return min(body_bytes + model.template_tokens, model.context_length)


def _is_text(message: Message) -> bool:
    return not isinstance(message.content, list) or all(part.type == "text" for part in message.content)


def _forwarded(fields: dict[str, msgspec.Raw], output_limit: int, *, stream: bool, continuous: bool) -> bytes:
    """The body for the backend: every field as it came, to the byte, but for the limit and the request for usage."""
    for name in _LIMITS:
        fields.pop(name, None)
    fields["max_tokens"] = msgspec.Raw(b"%d" % output_limit)
    if stream:
        asked = fields.get("stream_options", _NULL)
        options = {} if bytes(asked) == b"null" else _decode_fields(asked)
        options["include_usage"] = msgspec.Raw(b"true")
        if continuous:
            options["continuous_usage_stats"] = msgspec.Raw(b"true")
        fields["stream_options"] = msgspec.Raw(_encode(options))
    else:
        fields.pop("stream_options", None)
    return _encode(fields)
