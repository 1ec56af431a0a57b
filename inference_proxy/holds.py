"""The hold of one request: placed before anything is forwarded, ended exactly once whatever happens."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from inference_proxy.metrics import HOLDS, OVERRUNS, TALLY, UNKNOWN_METERS
from inference_proxy.prices import RequestPrice
from inference_proxy.progress import Progress
from inference_proxy.recovery import encode_settlement
from inference_proxy.write_ahead import WriteAheadFile
from ledger import (
    Committed,
    ExtendHold,
    Ledger,
    LedgerOverloaded,
    LedgerUnavailable,
    PlaceHold,
    Refused,
    SettleHold,
    VoidHold,
)
from ledger.errors import HoldAlreadyEnded, HoldUnknown
from ledger.events import HoldSettled
from pricing import Usage, UsageBox, UsageError, unknown_meters

#: How long an answer waits for its settlement when Postgres is away. Then it goes out on the strength of the
#: write-ahead file.
SETTLE_WITHIN_S = 10.0
#: Beyond an operation's own limit a hold lives this much longer, so that it never ends under a request that runs.
SLACK_S = 60
FIRST_BACKOFF_S = 0.1
MAX_BACKOFF_S = 2.0

_log = structlog.get_logger(__name__)


class RequestHold:
    """One hold and the price that it is placed at.

    At every moment it knows how it would have to end if the request stopped now: without a charge, or with one for
    what was delivered. The latter is in the write-ahead file too, so that it survives this process. But a request that
    ``is_repeatable`` will be asked again when its answer was lost, and served anew once its hold has ended: nothing of
    it may be charged after that.
    """

    def __init__(
        self,
        ledger: Ledger,
        command: PlaceHold,
        price: RequestPrice,
        progress: Progress,
        write_ahead: WriteAheadFile,
        *,
        is_repeatable: bool,
    ) -> None:
        self.id = command.hold_id
        self.price = price
        self.progress = progress
        self.needs_ending = False  # it is open, or may be
        self.placed: Committed | None = None
        self._ledger = ledger
        self._command = command
        self._write_ahead = write_ahead
        self._slot: int | None = None
        self._is_repeatable = is_repeatable
        self._is_delivering = False
        self._is_told_unwritten = False
        self._end: SettleHold | VoidHold = VoidHold(
            stream_id=command.stream_id, hold_id=command.hold_id, reason="cut_off"
        )

    async def place(self) -> Committed:
        """Set the money aside. Raises a refusal: then there is no hold. After LedgerUnavailable or a cancellation
        there may be one."""
        self.needs_ending = True
        try:
            self.placed = await self._ledger.submit(self._command)
        except (Refused, LedgerOverloaded):
            self.needs_ending = False
            raise
        TALLY.count(HOLDS, "placed")
        return self.placed

    async def extend(self, box: UsageBox) -> None:
        """Hold as much as a usage in the box can cost. Raises InsufficientFunds, BudgetExceeded or another refusal,
        and LedgerUnavailable; then no more is held than before."""
        await self._ledger.submit(
            ExtendHold(
                stream_id=self._command.stream_id,
                hold_id=self.id,
                total_microcents=self.price.bound(box),
                lifetime_s=0,  # it lives as long as its request may take already
            )
        )

    def delivered(self, usage: Usage, *, backend: str) -> bool:
        """So much is in the client's hands: from now on the request ends with a charge for it, whatever happens.

        False, and nothing changes, for a usage that the program cannot price.
        """
        try:
            settlement = self._settlement(usage, outcome="cut_off", backend=backend)
        except UsageError:
            return False
        self._is_delivering = True
        self._decide(settlement)
        return True

    async def settle(self, usage: Usage, *, outcome: str, backend: str) -> Committed | None:
        """Charge exactly what was used, and release the rest. None: it is in the write-ahead file, and follows.

        Raises pricing.UsageError, with nothing charged, for a usage that the program cannot price; HoldAlreadyEnded
        for a repeatable request whose hold expired meanwhile; and LedgerUnavailable when the settlement can be written
        neither there nor here.
        """
        settlement = self._settlement(usage, outcome=outcome, backend=backend)
        for meter in unknown_meters(self.price.priced.program, settlement.usage):
            TALLY.count(UNKNOWN_METERS, meter)
            _log.warning("usage.unknown_meter", hold_id=self.id, model=self._command.model, meter=meter)
        self._decide(settlement)
        return await self._submit_end(within_s=SETTLE_WITHIN_S)

    async def void(self, reason: str) -> Committed | None:
        """Release everything: nothing was served. None: there is nothing to release any more, or it follows."""
        self.progress.delivered(0)
        self._decide(
            VoidHold(stream_id=self._command.stream_id, hold_id=self.id, reason=reason, served=self.progress.served)
        )
        try:
            return await self._submit_end(within_s=SETTLE_WITHIN_S)
        except LedgerUnavailable:
            return None

    async def finish(self) -> None:
        """End it as it has to end by now, however long that takes."""
        while self.needs_ending:
            with suppress(LedgerUnavailable):
                await self._submit_end(within_s=SETTLE_WITHIN_S)

    def _settlement(self, usage: Usage, *, outcome: str, backend: str) -> SettleHold:
        charged = self.price.usage(usage)
        return SettleHold(
            stream_id=self._command.stream_id,
            hold_id=self.id,
            key_id=self._command.key_id,
            amount_microcents=self.price.priced.charge(charged),
            usage=charged,
            outcome=outcome,
            backend=backend,
            served=self.progress.served,
            may_be_late=not self._is_repeatable,
        )

    def _decide(self, end: SettleHold | VoidHold) -> None:
        self._end = end
        if self._is_delivering and not self._is_repeatable and isinstance(end, SettleHold):
            self._write_down(end)
        else:
            self._forget()

    def _write_down(self, end: SettleHold) -> bool:
        try:
            self._slot = self._write_ahead.put(self._slot, encode_settlement(end))
        except (OSError, ValueError) as error:
            self._tell_unwritten(error)
            return False
        return True

    def _tell_unwritten(self, error: Exception) -> None:
        if not self._is_told_unwritten:  # it is tried with every part, and a disk that is full may hold the log as well
            self._is_told_unwritten = True
            _log.error("settlement.not_written_ahead", hold_id=self.id, error=repr(error))

    def _forget(self) -> None:
        if self._slot is not None:
            self._write_ahead.free(self._slot)
            self._slot = None

    async def _submit_end(self, *, within_s: float) -> Committed | None:
        """Submit until the outcome is known; submitting the same end again has no second effect."""
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + within_s
        backoff = FIRST_BACKOFF_S
        is_safe = False
        while True:
            try:
                committed = await self._ledger.submit(self._end)
            except LedgerUnavailable:
                is_safe = is_safe or await self._make_safe()
                if loop.time() + backoff > give_up_at:
                    if is_safe:
                        return None
                    raise
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, MAX_BACKOFF_S)
            except (HoldUnknown, HoldAlreadyEnded) as refusal:
                self._ended()
                if isinstance(self._end, SettleHold):
                    _log.error("hold.not_settled", hold_id=self.id, error=str(refusal))
                    raise
                return None
            else:
                self._ended()
                self._count(committed)
                return committed

    async def _make_safe(self) -> bool:
        """Whether the settlement is on the disk of this machine."""
        if not isinstance(self._end, SettleHold) or not self._write_down(self._end):
            return False
        try:
            await asyncio.to_thread(self._write_ahead.sync)
        except OSError as error:
            self._tell_unwritten(error)
            return False
        return True

    def _ended(self) -> None:
        self.needs_ending = False
        self._forget()

    def _count(self, committed: Committed) -> None:
        event = committed.stored.event
        TALLY.count(HOLDS, str(event.__struct_config__.tag).removeprefix("hold."))
        if isinstance(event, HoldSettled) and event.overrun_microcents:
            TALLY.count(OVERRUNS, self._command.model)
            _log.error("hold.overrun", hold_id=self.id, model=self._command.model, overrun=event.overrun_microcents)


class Endings:
    """Ends, in the background, the holds of requests that cannot do it themselves.

    A request is cut off anywhere by a cancellation; what it can no longer do itself is done here, and awaited when
    the process stops. What even this cannot finish is in the write-ahead file, or released by the sweep.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def take_over(self, hold: RequestHold, end: Callable[[], Awaitable[object]]) -> None:
        """End the hold by ``end``, or however it can be ended when that fails. The first to say so decides how."""
        if hold.id not in self._tasks:
            self._tasks[hold.id] = task = asyncio.create_task(_end(hold, end), name=f"end-{hold.id}")
            task.add_done_callback(lambda _: self._tasks.pop(hold.id))

    async def drain(self, *, within_s: float) -> None:
        """Wait for all of them, so long at most."""
        if self._tasks:
            _, late = await asyncio.wait(self._tasks.values(), timeout=within_s)
            for task in late:
                task.cancel()


async def _end(hold: RequestHold, end: Callable[[], Awaitable[object]]) -> None:
    try:
        await end()
    except Exception as error:
        _log.warning("hold.not_ended", hold_id=hold.id, error=repr(error))
    try:
        await hold.finish()
    except Exception:  # left to the sweep, but nobody foresaw it
        _log.exception("hold.not_ended", hold_id=hold.id)
