"""A stream's hold in slices: it begins with the prompt and a first part of the answer, and grows as the answer does.

So a small balance is not locked out by the most that an answer could be. Nothing goes to the client that the hold
does not cover; while there is money, the next slice is set aside before the generation reaches the edge.
"""

import asyncio
from contextlib import suppress

from inference_proxy.holds import RequestHold
from inference_proxy.prepared import Prepared
from inference_proxy.sse import Part
from ledger import LedgerUnavailable, Refused
from pricing import UsageError


def first_slice(prepared: Prepared) -> int:
    """How many tokens of all answers together a hold begins with."""
    if prepared.slice_tokens is None:
        return prepared.output_limit
    return min(prepared.slice_tokens * prepared.answers, prepared.output_limit)


class AnswerTooLong(Exception):
    """The backend goes on beyond the limit that it was given."""


class Slices:
    """How far into its answer one stream is paid for."""

    def __init__(self, hold: RequestHold, prepared: Prepared) -> None:
        self._hold = hold
        self._prepared = prepared
        self._slice = self._covered = first_slice(prepared)
        self._growing: asyncio.Task[None] | None = None

    async def cover(self, part: Part) -> None:
        """Return when the hold covers the stream up to and with this part.

        Raises AnswerTooLong for what no hold is to cover, and what ``RequestHold.extend`` does; then the part must not
        be passed on.
        """
        while not self.covers(part):
            if (part.output_tokens or 0) > self._prepared.output_limit:
                raise AnswerTooLong(f"{part.output_tokens} tokens, the limit is {self._prepared.output_limit}")
            await self._grow(part)

    def covers(self, part: Part) -> bool:
        """Whether the hold covers the stream up to and with this part."""
        tokens = part.output_tokens
        if tokens is None:  # the backend does not count along as it should, so all of it must be held
            return self._covered >= self._prepared.output_limit
        return tokens <= self._covered

    def look_ahead(self, part: Part) -> None:
        """Set the next slice aside in the background once half of this one is used."""
        left = self._covered - (part.output_tokens or 0)
        if self._growing is None and left * 2 <= self._slice and self._covered < self._prepared.output_limit:
            self._growing = asyncio.create_task(self._extend(part), name=f"extend-{self._hold.id}")

    async def close(self) -> None:
        """Nothing grows any more."""
        if self._growing is not None:
            self._growing.cancel()
            with suppress(asyncio.CancelledError, Refused, LedgerUnavailable, UsageError):
                await self._growing

    async def _grow(self, part: Part) -> None:
        growing, self._growing = self._growing, None
        if growing is not None:
            with suppress(Refused, LedgerUnavailable):  # it was some time ago that this did not work
                await growing
                return
        await self._extend(part)

    async def _extend(self, part: Part) -> None:
        tokens = part.output_tokens
        limit = self._prepared.output_limit
        covered = limit if tokens is None else min(max(tokens, self._covered) + self._slice, limit)
        await self._hold.extend(self._prepared.box_within(covered, prompt_tokens=part.prompt_tokens))
        self._covered = covered
        self._growing = None
