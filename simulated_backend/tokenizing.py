"""Counting tokens without generating any: POST ``/tokenize`` as vLLM words it.

The shapes follow vLLM's ``entrypoints/serve/tokenize/protocol.py`` (read November 2026). Messages are counted as a chat
completion counts them, a text as the tokens of an answer; so a text that was streamed from here has as many tokens as
were generated for it. As nothing is generated, nothing is written into the journal, and the faults of chat completions
and their counts (``every``, ``times``) are left alone.
"""

import asyncio
from typing import Any, Final

import msgspec

from simulated_backend.chat import Refusal, check_model, decode, decode_with
from simulated_backend.connection import Connection, Request
from simulated_backend.faults import BadWish, FaultBoard, Faults
from simulated_backend.generation import tokenize, tokens_of_text


class _TextRequest(msgspec.Struct, frozen=True):
    """The fields of a request that say what is to be counted; without ``prompt`` it is about messages."""

    model: str
    prompt: str | msgspec.UnsetType = msgspec.UNSET
    add_special_tokens: bool | msgspec.UnsetType = msgspec.UNSET  # by default true for a text, false for messages


_DECODER: Final = msgspec.json.Decoder(_TextRequest)


class TokenizeService:
    """Serves requests to count tokens; ``begin`` is all there is to call."""

    def __init__(self, models: tuple[str, ...], context_length: int, board: FaultBoard) -> None:
        self._models = models
        self._context_length = context_length
        self._board = board

    def begin(self, connection: Connection, request: Request) -> None:
        """Serve a request: at once where it was not told to hang."""
        try:
            faults = self._board.uncounted(request.headers.get("x-simulate"))
        except BadWish as bad:
            connection.send(400, Refusal(400, f"x-simulate: {bad}", kind="BadWish").body)
            return
        if faults.tokenize_hang:
            connection.serve_on(self._hang(connection, request, faults), lambda task: None)
        else:
            self._respond(connection, request, faults)

    async def _hang(self, connection: Connection, request: Request, faults: Faults) -> None:
        await asyncio.sleep(faults.tokenize_hang)
        self._respond(connection, request, faults)

    def _respond(self, connection: Connection, request: Request, faults: Faults) -> None:
        try:
            if faults.tokenize_status is not None:
                raise Refusal(faults.tokenize_status, "This backend was told to refuse.", kind="SimulatedFault")
            connection.send(200, msgspec.json.encode(self._answer(_count(request.body, self._models))))
        except Refusal as refusal:
            connection.send(refusal.status, refusal.body)

    def _answer(self, count: int) -> dict[str, Any]:
        # The ids only have to be as many as there are tokens: nobody can turn them back into text here.
        return {
            "count": count,
            "max_model_len": self._context_length,
            "tokens": list(range(count)),
            "token_strs": None,
        }


def _count(body: bytes, models: tuple[str, ...]) -> int:
    """Tokens. The beginning-of-sequence token that ``add_special_tokens`` asks for is one more."""
    request = decode_with(_DECODER, body)
    check_model(request.model, models)
    if request.prompt is not msgspec.UNSET:
        return tokens_of_text(request.prompt.encode()) + (request.add_special_tokens is not False)
    chat = decode(body)
    prompt = tokenize(chat.model, chat.messages, chat.tool_definitions)
    return prompt.tokens + (request.add_special_tokens is True)
