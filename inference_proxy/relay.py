"""A streamed answer on its way to the client: passed through as it comes, settled before its last event."""

import asyncio
from typing import Any

import aiohttp
import structlog

from inference_proxy.backends import Backend
from inference_proxy.client import ClientGone, ClientStream
from inference_proxy.costs import cost_headers, has_output, output_tokens
from inference_proxy.delivered import delivered_of
from inference_proxy.holds import RequestHold
from inference_proxy.metrics import OVERRUNS, TALLY, UNREADABLE_USAGE
from inference_proxy.operations import Operation
from inference_proxy.prepared import Prepared
from inference_proxy.refusals import money_reason, translate
from inference_proxy.slices import AnswerTooLong, Slices
from inference_proxy.sse import EventStream, EventTooLarge, Part
from inference_proxy.upstream import Upstream
from inference_proxy.usage import UsageUnreadable
from ledger import Committed, LedgerUnavailable, Refused
from ledger.errors import BudgetExceeded, HoldAlreadyEnded, InsufficientFunds
from pricing import Usage, UsageError
from wire import ApiError
from wire.errors import error_event

DONE = b"data: [DONE]\n\n"
#: Usage may come after [DONE], and then the end of the connection; nobody waits for either any longer.
AFTER_DONE_S = 1.0

_log = structlog.get_logger(__name__)


class Relay:
    """One stream: ``pass_on``, then ``end_hold``, then ``say_goodbye``. After a cancellation ``end_hold`` alone.

    What the client did not get is not charged: whoever breaks off, the charge is what the backend had counted with
    the last part that was passed on.
    """

    def __init__(
        self,
        operation: Operation,
        prepared: Prepared,
        hold: RequestHold,
        upstream: Upstream,
        backend: Backend,
        answer: aiohttp.ClientResponse,
        client: ClientStream,
    ) -> None:
        self.outcome = "cut_off"  # until anything else is known
        self._operation = operation
        self._prepared = prepared
        self._hold = hold
        self._upstream = upstream
        self._backend = backend
        self._answer = answer
        self._client = client
        self._events = EventStream(
            wants_usage=prepared.wants_usage, wants_all_usage=prepared.wants_all_usage, answers=prepared.answers
        )
        self._slices = Slices(hold, prepared)
        self._delivered = delivered_of(prepared, hold, upstream, backend, self._read)
        self._curtailed: InsufficientFunds | BudgetExceeded | AnswerTooLong | None = None  # why the answer stops early
        self._failure: ApiError | None = None  # what the client hears of an answer that broke off

    async def pass_on(self) -> None:
        """Pass the answer on until it ends, or cannot go on. Raises nothing but CancelledError."""
        try:
            await self._pass_all()
            self._judge_end()
        except ClientGone:
            self.outcome = "client_gone"
        except (InsufficientFunds, BudgetExceeded) as refusal:
            self.outcome, self._curtailed = "out_of_money", refusal
        except AnswerTooLong as overrun:
            TALLY.count(OVERRUNS, self._prepared.model)
            _log.error("stream.too_long", backend=self._backend.name, hold_id=self._hold.id, error=str(overrun))
            self.outcome, self._curtailed = "too_long", overrun
        except (Refused, LedgerUnavailable, UsageError) as error:
            _log.error("stream.not_covered", hold_id=self._hold.id, error=repr(error))
            self._broke_off("not_covered", "ledger_unavailable", "no more can be held for the answer now")
        except (aiohttp.ClientError, EventTooLarge, TimeoutError, OSError) as error:
            _log.warning("backend.broke_off", backend=self._backend.name, hold_id=self._hold.id, error=repr(error))
            self._judge_end()
        finally:
            await self._slices.close()
            if not self._answer.content.at_eof():
                self._answer.close()

    async def end_hold(self) -> Committed | None:
        """Charge what was delivered, or release the hold. None: that is not committed yet, and follows."""
        self._hold.progress.generated(Part(b"", self._events.usage).output_tokens)
        try:
            return await self._charge(await self._counted())
        except (UsageUnreadable, UsageError) as error:  # served, and somebody must look at the backend
            TALLY.count(UNREADABLE_USAGE, self._backend.name)
            _log.error("usage.unreadable", backend=self._backend.name, hold_id=self._hold.id, error=str(error))
        if self._delivered.usage is not None:  # what it said of itself before that could be read
            return await self._charge(self._delivered.usage)
        return await self._hold.void("usage_unreadable")

    def left(self) -> None:
        """The client went while the answer was being passed on."""
        if self.outcome == "cut_off":
            self.outcome = "client_gone"

    async def say_goodbye(self, committed: Committed | None) -> None:
        """The end of the stream, with what it cost where that is known."""
        if self.outcome == "client_gone":
            self._client.abort()
            return
        # Comment lines: every client skips them that does not look for them, where a named event breaks some SDKs.
        costs = "".join(f": {name}={value}\n" for name, value in cost_headers(committed).items())
        await self._end((f"{costs}\n".encode() if costs else b"") + self._last_words())

    async def fail(self, error: Exception) -> None:
        """The headers are out: only the stream itself can still say that its charge could not be written."""
        _log.error("stream.not_settled", hold_id=self._hold.id, error=repr(error))
        if isinstance(error, HoldAlreadyEnded):
            failure = ApiError("ledger_unavailable", "the hold ended before its charge; nothing is charged")
        elif isinstance(error, LedgerUnavailable):
            failure = ApiError("ledger_unavailable", "the charge is not written yet; it follows")
        else:
            failure = ApiError("internal_error", "an error of ours; what is charged, the receipt will say")
        await self._end(error_event(failure))

    async def _pass_all(self) -> None:
        async with self._client.patience as patience:
            await self._client.start()
            async for chunk in self._answer.content.iter_any():
                was_done = self._events.is_done
                await self._pass(self._events.feed(chunk))
                if self._events.is_done and not was_done:
                    patience.reschedule(asyncio.get_running_loop().time() + AFTER_DONE_S)

    async def _pass(self, parts: list[Part]) -> None:
        ready: list[Part] = []
        for part in parts:
            if not self._slices.covers(part):
                await self._send(ready)
                ready = []
                await self._slices.cover(part)
            ready.append(part)
        await self._send(ready)

    async def _send(self, parts: list[Part]) -> None:
        if not parts:
            return
        last = parts[-1]
        self._slices.look_ahead(last)
        data = last.data if len(parts) == 1 else b"".join([part.data for part in parts])
        self._hold.progress.answering()
        await self._client.send(data)
        if self._client.reaches:
            self._delivered.add(data, last)

    def _judge_end(self) -> None:
        if not self._client.reaches:
            self.outcome = "client_gone"
        elif self._events.is_done and not self._events.has_failed:
            self.outcome = "completed"
        elif self._upstream.is_closed:
            self._broke_off("cut_off", "shutting_down", "the server stops")
        else:
            self._broke_off("backend_failed", "backend_error", "the backend broke off its answer")

    def _broke_off(self, outcome: str, code: str, message: str) -> None:
        self.outcome = outcome
        self._failure = ApiError(code, f"{message}; only what arrived is charged")

    async def _counted(self) -> Usage | None:
        """What is to be charged, as the backend counts it; None when nothing was delivered. Raises UsageUnreadable."""
        if self.outcome == "completed" or self._delivered.is_all_of(self._events.usage):
            return self._read(self._events.usage)
        return await self._delivered.counted(self._events.usage, self.outcome)

    def _read(self, usage: Any) -> Usage:
        """Raises UsageUnreadable."""
        return self._prepared.believed(self._operation.read_usage(usage))

    async def _charge(self, usage: Usage | None) -> Committed | None:
        if usage is not None and not has_output(usage):
            usage = self._delivered.usage  # what was counted along is more than nothing
        if usage is None:
            return await self._hold.void("empty" if self.outcome == "completed" else self.outcome)
        self._hold.progress.delivered(output_tokens(usage))
        await self._client.keep(self._last_words())
        return await self._hold.settle(usage, outcome=self.outcome, backend=self._backend.name)

    def _last_words(self) -> bytes:
        if self._failure is not None:
            return error_event(self._failure)
        if self._curtailed is None:
            return self._events.usage_chunk() + DONE
        if isinstance(self._curtailed, AnswerTooLong):
            refusal = ApiError("backend_error", f"the backend goes on beyond its limit: {self._curtailed}")
            reason = "max_tokens"
        else:
            refusal = translate(self._curtailed) or ApiError("payment_required", "no more can be held for the answer")
            reason = money_reason(self._curtailed)
        if self._delivered.last is None:
            return error_event(refusal)
        return self._events.early_end(self._delivered.last, {"reason": reason, "message": refusal.message}) + DONE

    async def _end(self, data: bytes) -> None:
        try:
            await self._client.end(data)
        except ClientGone:
            _log.info("client.gone_at_end", hold_id=self._hold.id)
