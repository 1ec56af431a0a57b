"""What the model "says": a pure function of the request, with a tokenizer that can be computed by hand.

Tokenizer: each message costs three tokens of template plus one for every four bytes (or part of four) of its text, in
UTF-8; tool definitions and tool calls count as their JSON text. That is never more than one token a byte of the
request's JSON, because a message without any text still takes more than three bytes there.

Answer: a stretch of a fixed ring of words, one word a token; where it begins and how long it naturally is follow from a
hash of the messages. Equal messages get equal answers, in every process and on every machine.
"""

import hashlib
from collections import OrderedDict
from itertools import accumulate
from typing import Any, Final, Literal

import msgspec

from simulated_backend.faults import Faults

BYTES_PER_TOKEN: Final = 4
TEMPLATE_TOKENS_PER_MESSAGE: Final = 3
#: The prompt cache works on whole blocks of tokens, as vLLM's does.
CACHE_BLOCK_TOKENS: Final = 16
CACHED_PREFIXES: Final = 10_000

NATURAL_TOKENS_MIN: Final = 8
NATURAL_TOKENS_MAX: Final = 64

_WORDS: Final = (
    "the a of to and in is it for on with as by at from this that we you they account answer balance batch book card "
    "cause chain cloud coin column day debt depth edge event fact field flow gate graph hash held house index key "
    "ledger light line log model month naïve note order page price proof queue rate row seal shard token value word "
    "账本"
)
RING_TOKENS: Final = 4096
#: Added to the seed for each further choice, so that choices differ; the golden ratio of 64 bits spreads them evenly.
_CHOICE_STRIDE: Final = 0x9E3779B97F4A7C15


class Message(msgspec.Struct, frozen=True):
    """The parts of a message that cost tokens."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[Any] | None = None


class Choice(msgspec.Struct, frozen=True):
    """One answer: ``tokens`` words of the ring, beginning at ``start``."""

    index: int
    start: int
    tokens: int
    finish_reason: Literal["stop", "length"]


class Generation(msgspec.Struct, frozen=True):
    """Everything that one request will be answered with, decided before the first token."""

    prompt_tokens: int
    cached_tokens: int
    choices: tuple[Choice, ...]
    completion_tokens: int  # over all choices


class Prompt(msgspec.Struct, frozen=True):
    """A tokenized prompt: after each message the tokens so far and a digest of everything so far."""

    prefixes: tuple[tuple[bytes, int], ...]

    @property
    def tokens(self) -> int:
        """Length of the whole prompt in tokens."""
        return self.prefixes[-1][1]

    @property
    def seed(self) -> int:
        """A number that is the same for equal prompts."""
        return int.from_bytes(self.prefixes[-1][0], "big")


def _ring() -> tuple[bytes, ...]:
    # A linear congruential generator: random.Random promises the same sequence only within one version of Python.
    choice_of_words = [word.encode() for word in _WORDS.split()]
    state, words = 1, []
    for _ in range(RING_TOKENS):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        words.append(b" " + choice_of_words[(state >> 33) % len(choice_of_words)])
    return tuple(words)


RING: Final = _ring()
_RING_TEXT: Final = b"".join(RING)
_TWO_ROUNDS: Final = _RING_TEXT * 2
_OFFSETS: Final = tuple(accumulate((len(word) for word in RING * 2), initial=0))


def text_of(choice: Choice) -> bytes:
    """The whole answer, UTF-8. It needs no escaping to stand in a JSON string."""
    rounds, rest = divmod(choice.tokens, RING_TOKENS)
    begin = _OFFSETS[choice.start]
    text = _TWO_ROUNDS[begin : begin + len(_RING_TEXT)] * rounds + _TWO_ROUNDS[begin : _OFFSETS[choice.start + rest]]
    return text[1:]  # the first word has no blank before it


def content_of(generation: Generation, steps: int) -> bytes:
    """The text of all choices, one after the other, as far as so many steps of the engine have brought it, UTF-8."""
    return b"".join(
        text_of(choice if choice.tokens <= steps else msgspec.structs.replace(choice, tokens=steps))
        for choice in generation.choices
    )


def tokens_of_text(text: bytes) -> int:
    """Tokens in a text of an answer, whole or a part of it: each blank begins one, and so does a text without."""
    return text.count(b" ") + (text[:1] not in (b"", b" "))


def tokenize(model: str, messages: list[Message], tools: bytes = b"") -> Prompt:
    """Count and fingerprint a prompt. ``tools`` is the JSON of the tool definitions, which the template puts first."""
    tokens = _tokens_in(len(tools))
    digest = model.encode() + b"\0" + tools
    prefixes = []
    for message in messages:
        text = _text(message)
        tokens += TEMPLATE_TOKENS_PER_MESSAGE + _tokens_in(len(text))
        digest = hashlib.blake2b(b"%b\0%b\0%b" % (digest, message.role.encode(), text), digest_size=16).digest()
        prefixes.append((digest, tokens))
    return Prompt(tuple(prefixes))


def _text(message: Message) -> bytes:
    content = message.content
    text = content.encode() if isinstance(content, str) else b"".join(map(_part_text, content or ()))
    return text + msgspec.json.encode(message.tool_calls) if message.tool_calls else text


def _part_text(part: dict[str, Any]) -> bytes:
    text = part.get("text")
    return text.encode() if isinstance(text, str) else msgspec.json.encode(part)


def _tokens_in(byte_count: int) -> int:
    return -(-byte_count // BYTES_PER_TOKEN)


class PromptCache:
    """Remembers the prompts it has seen, message by message, and forgets those unused for longest."""

    def __init__(self) -> None:
        self._prefixes: OrderedDict[bytes, None] = OrderedDict()

    def lookup(self, prompt: Prompt) -> int:
        """Tokens of the prompt that need no computing: whole blocks, and never the last token, as its output is needed.

        The prompt is remembered from now on.
        """
        known = 0
        for digest, tokens in prompt.prefixes:
            if digest in self._prefixes:
                known = tokens
                self._prefixes.move_to_end(digest)
            else:
                self._prefixes[digest] = None
        while len(self._prefixes) > CACHED_PREFIXES:
            self._prefixes.popitem(last=False)
        return min(known, prompt.tokens - 1) // CACHE_BLOCK_TOKENS * CACHE_BLOCK_TOKENS


def generate(
    prompt: Prompt, *, cached_tokens: int, choices: int, min_tokens: int, max_tokens: int, faults: Faults
) -> Generation:
    """Decide the whole answer. ``max_tokens`` bounds each choice and is what the request and the context leave."""
    if faults.cached is not None:
        cached_tokens = min(faults.cached, prompt.tokens)
    answers = tuple(_choice(prompt.seed, index, min_tokens, max_tokens, faults) for index in range(choices))
    return Generation(
        prompt_tokens=prompt.tokens,
        cached_tokens=cached_tokens,
        choices=answers,
        completion_tokens=sum(answer.tokens for answer in answers),
    )


def _choice(seed: int, index: int, min_tokens: int, max_tokens: int, faults: Faults) -> Choice:
    own_seed = seed + index * _CHOICE_STRIDE
    natural = NATURAL_TOKENS_MIN + own_seed % (NATURAL_TOKENS_MAX - NATURAL_TOKENS_MIN + 1)
    wanted = max(natural, min_tokens) if faults.tokens is None else faults.tokens
    tokens = min(wanted, max_tokens) if faults.overrun is None else faults.overrun
    return Choice(
        index=index,
        start=own_seed % RING_TOKENS,
        tokens=tokens,
        finish_reason="length" if tokens < wanted else "stop",
    )
