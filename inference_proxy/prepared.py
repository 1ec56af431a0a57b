"""What an operation makes of a request."""

import msgspec

from inference_proxy.models import PartialUsage
from inference_proxy.usage import UsageUnreadable
from pricing import Span, Usage, UsageBox


class Prepared(msgspec.Struct, frozen=True, kw_only=True):
    """A request that may be forwarded: bounded, and with its limits written into the body that the backend gets."""

    model: str
    body: bytes  # as forwarded
    box: UsageBox  # every usage that the request can have
    prompt_keys: tuple[str, ...] = ()  # of the box: the tokens of the prompt, then those that are a part of them
    answer_keys: tuple[str, ...] = ()  # of the box: what the length of the answer bounds
    stream: bool = False
    wants_usage: bool = False  # the client asked for a usage chunk at the end of the stream
    wants_all_usage: bool = False  # the client asked for usage on every chunk
    max_output_tokens: int | None = None  # of one answer, as forwarded
    answers: int = 1  # how many answers the request asks for
    slice_tokens: int | None = None  # of one answer: what the hold begins with and grows by; None = all of it
    context_length: int | None = None  # tokens of the prompt and one answer together, at most
    partial_usage: PartialUsage = "continuous"
    drain_s: float = 0.0

    @property
    def output_limit(self) -> int:
        """The most tokens that all answers together can have."""
        return self.answers * (self.max_output_tokens or 0)

    def believed(self, usage: Usage) -> Usage:
        """The usage, if a request to this model can have it. Raises UsageUnreadable for what no context can hold."""
        if self.context_length is not None:
            for keys, answers in ((self.prompt_keys, 1), (self.answer_keys, self.answers)):
                for key in keys:
                    count = usage.get(key, 0)
                    if type(count) is int and count > answers * self.context_length:
                        raise UsageUnreadable(f"{key} is {count}, the context {self.context_length}")
        return usage

    def box_within(self, output_tokens: int, *, prompt_tokens: int | None = None) -> UsageBox:
        """The usages of the box with at most so many tokens in all answers, and with this prompt where it is known."""
        box = {**self.box, **dict.fromkeys(self.answer_keys, Span(0, output_tokens))}
        if prompt_tokens is not None and self.prompt_keys:
            whole, *parts = self.prompt_keys
            box |= {whole: Span(prompt_tokens, prompt_tokens), **dict.fromkeys(parts, Span(0, prompt_tokens))}
        return box
