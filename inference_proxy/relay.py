"""A streamed answer on its way to the client: passed through as it comes, settled before its last event."""

import asyncio

import aiohttp
import structlog
from aiohttp import web

from inference_proxy.backends import Backend
from inference_proxy.holds import RequestHold
from inference_proxy.metrics import TALLY, UNREADABLE_USAGE
from inference_proxy.operations import Operation
from inference_proxy.prepared import Prepared
from inference_proxy.sse import EventStream, EventTooLarge
from inference_proxy.usage import UsageUnreadable
from ledger import Committed, LedgerUnavailable, cents_text
from ledger.events import HoldSettled
from pricing import UsageError
from wire import ApiError
from wire.errors import error_event

#: A client that takes nothing for so long is gone: its hold must not run out under an answer that is being served.
CLIENT_STALL_S = 30.0

_log = structlog.get_logger(__name__)


class ClientGone(Exception):
    """The client closed its connection. Not an aiohttp error, so that it is never taken for one of the backend's."""


async def relay(
    operation: Operation,
    prepared: Prepared,
    hold: RequestHold,
    backend: Backend,
    answer: aiohttp.ClientResponse,
    request: web.Request,
    headers: dict[str, str],
) -> web.StreamResponse:
    """Pass the stream through. Ends the hold in every case but a cancellation.

    What the client did not get is not charged: when either side breaks off, the charge is what the backend had
    counted with the last chunk that was passed on.
    """
    response = web.StreamResponse(headers={**headers, "content-type": "text/event-stream", "cache-control": "no-cache"})
    events = EventStream(wants_usage=prepared.wants_usage, wants_all_usage=prepared.wants_all_usage)
    outcome = "completed"
    failure: ApiError | None = None
    try:
        try:
            await response.prepare(request)
        except ConnectionResetError as error:
            raise ClientGone from error
        async for chunk in answer.content.iter_any():
            passed = events.feed(chunk)
            if passed:
                hold.is_served = True
                await _send(response, passed)
    except ClientGone:
        outcome = "client_gone"
        answer.close()
    except (aiohttp.ClientError, EventTooLarge, TimeoutError, OSError) as error:
        _log.warning("backend.broke_off", backend=backend.name, hold_id=hold.id, error=repr(error))
    if outcome == "completed" and (events.has_failed or not events.is_done):
        outcome = "backend_failed"
        failure = ApiError("backend_error", "the backend broke off its answer; only what arrived is charged")
    try:
        committed = await _end_hold(operation, hold, events, outcome, backend)
    except Exception as error:  # the headers are out: only the stream itself can still say what went wrong
        _log.exception("stream.not_settled", hold_id=hold.id)
        code = "ledger_unavailable" if isinstance(error, LedgerUnavailable) else "internal_error"
        await _send_end(response, error_event(ApiError(code, "the charge is not written yet; it follows")))
        return response
    if outcome != "client_gone":
        await _finish(response, events, committed, failure)
    elif request.transport is not None:
        request.transport.abort()
    return response


async def _end_hold(
    operation: Operation, hold: RequestHold, events: EventStream, outcome: str, backend: Backend
) -> Committed:
    if not events.has_content:
        return await hold.void(outcome)
    try:
        usage = operation.read_usage(events.usage)
        if outcome == "backend_failed" and not usage.get("output_tokens"):
            return await hold.void(outcome)  # a prompt that was read for nothing
        return await hold.settle(usage, outcome=outcome, backend=backend.name)
    except (UsageUnreadable, UsageError) as error:
        # It has been served and cannot be priced. Nothing is charged on a guess; somebody must look at the backend.
        TALLY.count(UNREADABLE_USAGE, backend.name)
        _log.error("usage.unreadable", backend=backend.name, hold_id=hold.id, error=str(error))
        return await hold.void("usage_unreadable")


async def _finish(
    response: web.StreamResponse, events: EventStream, committed: Committed, failure: ApiError | None
) -> None:
    event = committed.stored.event
    cost = cents_text(event.amount_microcents) if isinstance(event, HoldSettled) else "0"
    # Comment lines: every client skips them that does not look for them, where a named event breaks some SDKs.
    balance = cents_text(committed.account.posted)
    end = f": x-tollgate-cost-cents={cost}\n: x-tollgate-balance-cents={balance}\n\n".encode()
    end += events.usage_chunk() + b"data: [DONE]\n\n" if failure is None else error_event(failure)
    await _send_end(response, end)


async def _send_end(response: web.StreamResponse, end: bytes) -> None:
    try:
        await _send(response, end)
        await response.write_eof()
    except (ClientGone, ConnectionResetError):
        _log.info("client.gone_at_end")


async def _send(response: web.StreamResponse, data: bytes) -> None:
    try:
        async with asyncio.timeout(CLIENT_STALL_S):
            await response.write(data)
    except (ConnectionResetError, TimeoutError) as error:
        raise ClientGone from error
