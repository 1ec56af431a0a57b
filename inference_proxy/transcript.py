"""What a client got of a stream whose backend does not count along: its words, to be counted by the backend."""

from typing import Any

import aiohttp
import msgspec

from inference_proxy.backends import Backend, BackendPool
from inference_proxy.prepared import Prepared
from inference_proxy.usage import UsageUnreadable
from wire import ApiError

#: How long a backend may take to count.
COUNT_TIMEOUT_S = 5.0
#: Of a request, what decides how the chat template writes its prompt.
_PROMPT_FIELDS = ("messages", "tools", "chat_template", "chat_template_kwargs", "add_generation_prompt",
                  "continue_final_message", "add_special_tokens")  # fmt: skip

_encode = msgspec.json.Encoder().encode
_decode_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Words(msgspec.Struct):
    """A message, or what an event adds to it."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None  # as vLLM called it before 0.12, and SGLang does
    tool_calls: list[_ToolCall] | None = None

    @property
    def text(self) -> str:
        calls = (call.function for call in self.tool_calls or () if call.function is not None)
        of_calls = [part for call in calls for part in (call.name, call.arguments)]
        thought = self.reasoning or self.reasoning_content
        return "".join(part for part in (thought, self.content, *of_calls) if part)


class _Choice(msgspec.Struct):
    index: int = 0
    delta: _Words | None = None
    message: _Words | None = None  # in an answer of one piece


class _Chunk(msgspec.Struct):
    choices: list[_Choice] = []


class _Count(msgspec.Struct):
    count: int


_decode_chunk = msgspec.json.Decoder(_Chunk).decode
_decode_count = msgspec.json.Decoder(_Count).decode


class Transcript:
    """The words of one stream that reached its client."""

    def __init__(self) -> None:
        self.words = 0  # events with text in them. Each is a token or more
        self._texts: dict[int, list[str]] = {}

    def add(self, events: bytes) -> None:
        """What was passed on."""
        for line in events.splitlines():
            if line.startswith(b"data:"):
                self._add_chunk(line[5:])

    def _add_chunk(self, data: bytes) -> None:
        try:
            chunk = _decode_chunk(data)
        except msgspec.DecodeError:  # the client could make nothing of it either
            return
        texts = [(choice.index, choice.delta.text) for choice in chunk.choices if choice.delta is not None]
        for index, text in texts:
            if text:
                self._texts.setdefault(index, []).append(text)
        self.words += any(text for _, text in texts)

    async def counted(self, pool: BackendPool, backend: Backend, prepared: Prepared) -> dict[str, Any]:
        """The usage as the backend counts what it is shown (``POST /tokenize``, as vLLM and SGLang speak it).

        Raises UsageUnreadable when it does not.
        """
        fields = _decode_fields(prepared.body)
        prompt = {name: fields[name] for name in _PROMPT_FIELDS if name in fields}
        asked: list[dict[str, Any]] = [{"model": prepared.model, **prompt}]
        asked += [
            {"model": prepared.model, "prompt": "".join(parts), "add_special_tokens": False}
            for parts in self._texts.values()
        ]
        prompt_tokens, *answers = [await _count(pool, backend, each) for each in asked]
        return {"prompt_tokens": prompt_tokens, "completion_tokens": sum(answers)}


def has_words(answer: bytes) -> bool:
    """Whether a whole answer says anything."""
    try:
        choices = _decode_chunk(answer).choices
    except msgspec.DecodeError:
        return False
    return any(choice.message is not None and choice.message.text for choice in choices)


async def _count(pool: BackendPool, backend: Backend, asked: dict[str, Any]) -> int:
    try:
        async with pool.session.post(
            f"{backend.url}/tokenize",
            data=_encode(asked),
            headers=backend.headers,
            timeout=aiohttp.ClientTimeout(total=COUNT_TIMEOUT_S),
            allow_redirects=False,
        ) as answer:
            answer.raise_for_status()
            return _decode_count(await answer.read()).count
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError, ApiError) as error:
        raise UsageUnreadable(f"the backend did not count: {error!r}") from error
