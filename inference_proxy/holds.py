"""The hold of one request: placed before anything is forwarded, ended exactly once whatever happens."""

import asyncio

import structlog

from inference_proxy.metrics import HOLDS, OVERRUNS, TALLY, UNKNOWN_METERS
from inference_proxy.prices import RequestPrice
from ledger import Committed, Ledger, LedgerUnavailable, PlaceHold, Refused, SettleHold, VoidHold
from ledger.events import HoldSettled
from pricing import Usage, unknown_meters

#: How long a request waits for its settlement when Postgres is away. Its hold stays where it is meanwhile.
SETTLE_WITHIN_S = 30.0
#: Beyond an operation's own limit a hold lives this much longer, so that it never ends under a request that runs.
SLACK_S = 60

_log = structlog.get_logger(__name__)


class RequestHold:
    """A placed hold and the price that it was placed at."""

    def __init__(self, ledger: Ledger, placed: Committed, command: PlaceHold, price: RequestPrice) -> None:
        self.id = command.hold_id
        self.placed = placed
        self.is_ended = False
        self.is_served = False  # something of an answer has reached the client
        self._decided: SettleHold | VoidHold | None = None
        self._ledger = ledger
        self._command = command
        self._price = price
        TALLY.count(HOLDS, "placed")

    async def settle(self, usage: Usage, *, outcome: str, backend: str) -> Committed:
        """Charge exactly what was used, and release the rest.

        Raises pricing.UsageError, with nothing charged, for a usage that the program cannot price.
        """
        charged = self._price.usage(usage)
        amount = self._price.priced.charge(charged)
        for meter in unknown_meters(self._price.priced.program, charged):
            TALLY.count(UNKNOWN_METERS, meter)
            _log.warning("usage.unknown_meter", hold_id=self.id, model=self._command.model, meter=meter)
        committed = await self._end(
            SettleHold(
                stream_id=self._command.stream_id,
                hold_id=self.id,
                amount_microcents=amount,
                usage=charged,
                outcome=outcome,
                backend=backend,
            )
        )
        TALLY.count(HOLDS, "settled")
        event = committed.stored.event
        if isinstance(event, HoldSettled) and event.overrun_microcents:
            TALLY.count(OVERRUNS, self._command.model)
            _log.error("hold.overrun", hold_id=self.id, model=self._command.model, overrun=event.overrun_microcents)
        return committed

    async def void(self, reason: str) -> Committed:
        """Release everything: nothing was served."""
        committed = await self._end(VoidHold(stream_id=self._command.stream_id, hold_id=self.id, reason=reason))
        TALLY.count(HOLDS, "voided")
        return committed

    async def end_after_all(self, reason: str) -> Committed:
        """End it for a request that could not: what has been served is charged, however late, and nothing else is."""
        if self.is_served and self._decided is not None:
            return await self._end(self._decided)
        return await self.void(reason)

    async def _end(self, command: SettleHold | VoidHold) -> Committed:
        """Submit until the outcome is known; submitting the same end again has no second effect."""
        self._decided = command
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + SETTLE_WITHIN_S
        while True:
            try:
                committed = await self._ledger.submit(command)
            except LedgerUnavailable:
                if loop.time() > give_up_at:
                    raise
                await asyncio.sleep(0.1)
            else:
                self.is_ended = True
                return committed


class Orphans:
    """Ends, in the background, the holds of requests that ended without ending their hold.

    A request is cut off anywhere by a cancellation; what it can no longer do itself is done here, and awaited when
    the process stops. What even this cannot finish is found by the sweep.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def adopt(self, hold: RequestHold, reason: str) -> None:
        task = asyncio.create_task(self._end(hold, reason), name=f"end-{hold.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def drain(self) -> None:
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self, hold: RequestHold, reason: str) -> None:
        try:
            await hold.end_after_all(reason)
        except (Refused, LedgerUnavailable) as error:  # ended before, or left to the sweep
            _log.warning("hold.not_ended", hold_id=hold.id, error=str(error))
        except Exception:  # left to the sweep as well, but nobody foresaw it
            _log.exception("hold.not_ended", hold_id=hold.id)
