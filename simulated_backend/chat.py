"""Chat completions as vLLM words them: requests and their refusals, whole answers, events of a stream, usage.

The shapes follow vLLM's ``entrypoints/openai/chat_completion/serving.py`` (read November 2026): the role comes in a
chunk of its own, usage in a last chunk without choices and only when asked for. With ``continuous_usage_stats`` each
chunk counts the tokens of its own choice and says nothing of the prompt cache.
"""

from collections.abc import Iterator
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec

from simulated_backend.faults import Faults, UsageShape
from simulated_backend.generation import CACHE_BLOCK_TOKENS, RING, RING_TOKENS, Choice, Generation, Message, text_of

DONE: Final = b"data: [DONE]\n\n"
MAX_CHOICES: Final = 128

_TOKEN_DELTAS: Final = tuple(
    b',"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}]' % word for word in RING
)
_FIRST_TOKEN_DELTAS: Final = tuple(
    b',"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}]' % word[1:] for word in RING
)
_ROLE_DELTA: Final = b',"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]'


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream tells about usage."""

    include_usage: bool = False
    continuous_usage_stats: bool = False  # without include_usage it means nothing


class ChatRequest(msgspec.Struct, frozen=True):
    """The fields of a chat completion request that change the answer; all others are accepted and ignored."""

    model: str
    messages: Annotated[list[Message], msgspec.Meta(min_length=1)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None  # wins over max_tokens
    min_tokens: int | None = None
    ignore_eos: bool = False
    n: int | None = 1
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    tools: msgspec.Raw = msgspec.Raw(b"")

    @property
    def tool_definitions(self) -> bytes:
        """Their JSON as it came; empty when there are none."""
        raw = bytes(self.tools)
        return b"" if raw == b"null" else raw

    @property
    def asked_for_tokens(self) -> int | None:
        """The bound that the caller set on each choice."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class Refusal(Exception):
    """An error answer in vLLM's words."""

    def __init__(self, status: int, message: str, *, kind: str = "BadRequestError", param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.body = error_body(status, message, kind=kind, param=param)


def error_body(status: int, message: str, *, kind: str, param: str | None = None) -> bytes:
    """The JSON of an error, also used as the data of an error event."""
    return msgspec.json.encode({"error": {"message": message, "type": kind, "param": param, "code": status}})


_DECODER: Final = msgspec.json.Decoder(ChatRequest)
_Decoded = TypeVar("_Decoded")


def decode(body: bytes) -> ChatRequest:
    """The request as it came. Raises ``Refusal`` when it is not one."""
    return decode_with(_DECODER, body)


def decode_with(decoder: msgspec.json.Decoder[_Decoded], body: bytes) -> _Decoded:
    """What the decoder reads. Raises ``Refusal`` when it cannot."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Refusal(400, str(error), kind="Bad Request") from error


def check(request: ChatRequest, models: tuple[str, ...]) -> None:
    """Raise ``Refusal`` as vLLM would; the length of the prompt is not judged here."""
    check_model(request.model, models)
    _check_at_least_one("n", request.n)
    _check_at_least_one("max_tokens", request.asked_for_tokens)
    if request.n is not None and request.n > MAX_CHOICES:
        raise Refusal(400, f"n must be at most {MAX_CHOICES}, got {request.n}.", param="n")
    if request.stream_options is not None and not request.stream:
        raise Refusal(400, "Stream options can only be defined when `stream=True`.", param="stream_options")


def check_model(model: str, models: tuple[str, ...]) -> None:
    """Raise ``Refusal`` for a model that is not served here."""
    if model not in models:
        raise Refusal(404, f"The model `{model}` does not exist.", kind="NotFoundError", param="model")


def _check_at_least_one(name: str, value: int | None) -> None:
    if value is not None and value < 1:
        message = f"{name} must be at least 1, got {value}. (parameter={name}, value={value})"
        raise Refusal(400, message, param=name)


def tokens_left(request: ChatRequest, *, prompt_tokens: int, context_length: int) -> int:
    """How many tokens each choice may have. Raises ``Refusal`` when prompt and answer do not fit the context."""
    asked_for = request.asked_for_tokens
    left = context_length - prompt_tokens
    if left < (asked_for or 1):
        raise Refusal(
            400,
            f"This model's maximum context length is {context_length} tokens. However, you requested {asked_for or 1} "
            f"output tokens and your prompt contains at least {prompt_tokens} input tokens, for a total of at least "
            f"{prompt_tokens + (asked_for or 1)} tokens. Please reduce the length of the input prompt or the number of "
            "requested output tokens.",
            param="input_tokens",
        )
    return left if asked_for is None else asked_for


def usage_json(shape: UsageShape, generation: Generation, completion_tokens: int | None = None) -> bytes:
    """The usage object as the shape bends it; only numbers and their types are bent here, not where it stands.

    ``completion_tokens`` is given in the middle of a stream, where the prompt cache is not spoken of.
    """
    prompt, cached = generation.prompt_tokens, generation.cached_tokens
    completion = generation.completion_tokens if completion_tokens is None else completion_tokens
    match shape:
        case "null":
            return b"null"
        case "negative":
            prompt, completion = -prompt, -completion
        case "cached_above_prompt":
            cached = prompt + CACHE_BLOCK_TOKENS
        case "strings":
            numbers = (prompt, prompt + completion, completion)
            return b'{"prompt_tokens":"%d","total_tokens":"%d","completion_tokens":"%d"}' % numbers
    counts = b'"prompt_tokens":%d,"total_tokens":%d,"completion_tokens":%d' % (prompt, prompt + completion, completion)
    if completion_tokens is not None:
        return b"{%b}" % counts
    if shape == "no_cached_details":
        return b'{%b,"prompt_tokens_details":null}' % counts
    return b'{%b,"prompt_tokens_details":{"cached_tokens":%d}}' % (counts, cached)


def plain_answer(answer_id: str, created: int, model: str, generation: Generation, faults: Faults) -> bytes:
    """The body of an answer that is not streamed."""
    choices = b",".join(
        b'{"index":%d,"message":{"role":"assistant","content":"%b","refusal":null,"annotations":null,"audio":null,'
        b'"function_call":null,"tool_calls":[],"reasoning":null},"logprobs":null,"finish_reason":"%b",'
        b'"stop_reason":null,"token_ids":null}' % (choice.index, text_of(choice), choice.finish_reason.encode())
        for choice in generation.choices
    )
    usage_member = b"" if faults.usage == "missing" else b'"usage":%b,' % usage_json(faults.usage, generation)
    return (
        b'{"id":%b,"object":"chat.completion","created":%d,"model":%b,"choices":[%b],"service_tier":null,'
        b'"system_fingerprint":null,%b"prompt_logprobs":null,"kv_transfer_params":null}'
        % (_json(answer_id), created, _json(_named_model(model, faults)), choices, usage_member)
    )


def _named_model(model: str, faults: Faults) -> str:
    return f"not-{model}" if faults.usage == "other_model" else model


def _json(value: Any) -> bytes:
    return msgspec.json.encode(value)


class Step(NamedTuple):
    """One step of the engine, counted over all choices: each that has not ended gets one token."""

    events: bytes  # that it gives rise to; empty while tokens are held back
    tokens: int  # generated
    told: int  # in the events, those held back before included


class Stream:
    """The events of one streamed answer. ``opening``, then ``steps``, then ``closing``."""

    def __init__(
        self, answer_id: str, created: int, model: str, generation: Generation, options: StreamOptions, faults: Faults
    ) -> None:
        self._generation = generation
        self._shape = faults.usage
        self._interval = faults.stream_interval
        self._tells_usage = options.include_usage
        asked_for = options.include_usage and options.continuous_usage_stats
        counts_along = asked_for and faults.usage not in ("missing", "final_only")
        self._continuous = counts_along or faults.usage == "every_chunk"
        self._head = b'data: {"id":%b,"object":"chat.completion.chunk","created":%d,"model":%b,"choices":[' % (
            (_json(answer_id), created, _json(_named_model(model, faults)))
        )
        self._choice_heads = tuple(b'%b{"index":%d' % (self._head, choice.index) for choice in generation.choices)

    def opening(self) -> bytes:
        """The role of each choice, and the end of a choice that has no token at all."""
        roles = b"".join(head + _ROLE_DELTA + self._tail(0) for head in self._choice_heads)
        return roles + self._endings(0)

    def steps(self) -> Iterator[Step]:
        """One step for each token of the longest choice."""
        choices = self._generation.choices
        endings = {choice.tokens: self._endings(choice.tokens) for choice in choices}
        last = max(choice.tokens for choice in choices) - 1
        tail = self._tail(0)
        for step in range(last + 1):
            if self._continuous:
                tail = self._tail(step + 1)
            if step == last and self._shape == "with_last_token":
                tail = self._whole_usage_tail()
            if self._interval == 1:
                events = self._token_events(step, tail)
                told = tokens = len(events)
            else:
                events, tokens, told = self._interval_events(step, tail)
            yield Step(b"".join(events) + endings.get(step + 1, b""), tokens, told)

    def _token_events(self, step: int, tail: bytes) -> list[bytes]:
        deltas = _TOKEN_DELTAS if step else _FIRST_TOKEN_DELTAS
        return [
            head + deltas[(choice.start + step) % RING_TOKENS] + tail
            for head, choice in zip(self._choice_heads, self._generation.choices, strict=True)
            if step < choice.tokens
        ]

    def _interval_events(self, step: int, tail: bytes) -> tuple[list[bytes], int, int]:
        """Events, tokens generated and tokens told: as vLLM's --stream-interval, the first token at once, then always
        so many together, and with the last token of a choice what is left of it."""
        running = [
            (head, choice)
            for head, choice in zip(self._choice_heads, self._generation.choices, strict=True)
            if step < choice.tokens
        ]
        told_before = (step - 1) // self._interval * self._interval + 1 if step else 0
        events = [
            head + _delta(choice, told_before, step + 1) + tail
            for head, choice in running
            if step % self._interval == 0 or step + 1 == choice.tokens
        ]
        return events, len(running), len(events) * (step + 1 - told_before)

    def _endings(self, tokens: int) -> bytes:
        """The finish chunk of each choice that ends after so many tokens."""
        return b"".join(
            b'%b,"delta":{"content":""},"logprobs":null,"finish_reason":"%b","stop_reason":null}]%b'
            % (head, choice.finish_reason.encode(), self._finish_tail(tokens))
            for head, choice in zip(self._choice_heads, self._generation.choices, strict=True)
            if choice.tokens == tokens
        )

    def closing(self) -> bytes:
        """Usage where it was asked for, and the end mark."""
        if not self._tells_usage or self._shape in ("missing", "with_finish", "with_last_token"):
            return DONE
        event = b'%b],"usage":%b}\n\n' % (self._head, usage_json(self._shape, self._generation))
        match self._shape:
            case "twice":
                return event + event + DONE
            case "after_done":
                return DONE + event
        return event + DONE

    def _tail(self, tokens: int) -> bytes:
        if not self._continuous:
            return b"}\n\n"
        return b',"usage":%b}\n\n' % usage_json(self._shape, self._generation, tokens)

    def _finish_tail(self, tokens: int) -> bytes:
        return self._whole_usage_tail() if self._shape == "with_finish" else self._tail(tokens)

    def _whole_usage_tail(self) -> bytes:
        if not self._tells_usage:
            return b"}\n\n"
        return b',"usage":%b}\n\n' % usage_json(self._shape, self._generation)


def _delta(choice: Choice, begin: int, end: int) -> bytes:
    """The content delta of some tokens of a choice."""
    part = msgspec.structs.replace(choice, start=(choice.start + begin) % RING_TOKENS, tokens=end - begin)
    text = b" " + text_of(part) if begin else text_of(part)
    return b',"delta":{"content":"%b"},"logprobs":null,"finish_reason":null}]' % text
