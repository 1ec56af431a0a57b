"""Delivering: what is due is posted to its endpoint, and what became of it is noted.

At least once: a process that is killed between the answer and the note leaves a lease that ends, and the notice is sent
again under the same id. Any number of processes may deliver; each has so many deliveries under way and no more.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime

import aiohttp
import msgspec
import structlog

from ledger import UNREACHABLE, Ledger
from notices.contents import TEST
from notices.errors import SecretUnreadable, TargetRefused
from notices.metrics import ATTEMPTS, DISABLED
from notices.outbox import Attempt, Due, Outbox
from notices.schedule import asked_pause, next_try
from notices.signing import SigningSecrets, signed_headers
from notices.targets import NotPublic, TargetResolver, Targets

#: Deliveries under way in one process.
AT_ONCE = 32
#: Of them to endpoints whose last delivery failed: the others never wait behind receivers that hang.
AT_ONCE_FAILING = 8
#: From connecting to the head of the answer; its body is nobody's business and is not read.
TIMEOUT_S = 15.0
#: A receiver's header lines are cut off here.
MAX_HEADER = 8 * 1024

GONE = 410

_log = structlog.get_logger(__name__)


class CourierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """``server_secret`` opens the secrets that are signed with."""

    server_secret: bytes
    targets: Targets
    timeout_s: float = TIMEOUT_S

    def __repr__(self) -> str:
        return "CourierConfig(…)"


class Courier:
    """One per process; see ``open_courier``."""

    def __init__(
        self, outbox: Outbox, session: aiohttp.ClientSession, config: CourierConfig, clock: Callable[[], datetime]
    ) -> None:
        self._outbox = outbox
        self._session = session
        self._secrets = SigningSecrets(config.server_secret)
        self._targets = config.targets
        self._timeout_s = config.timeout_s
        self._clock = clock
        self._under_way: dict[asyncio.Task[None], bool] = {}  # whether it is to an endpoint that fails
        self._closing = False

    async def begin(self) -> None:
        """Begin to deliver what is due, as far as there is room. Raises one of ledger.UNREACHABLE."""
        for due in await self._take(AT_ONCE - len(self._under_way)):
            task = asyncio.create_task(self._work_off(due), name=f"deliver {due.notice_id}")
            self._under_way[task] = due.failing_since is not None
            task.add_done_callback(self._under_way.pop)

    async def finish(self) -> None:
        """Wait until nothing is under way; what is due follows in the places that become free."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Finish what was begun, and begin nothing more."""
        self._closing = True
        await self.finish()

    async def _take(self, room: int) -> list[Due]:
        if self._closing or room <= 0:
            return []
        room_for_failing = AT_ONCE_FAILING - sum(self._under_way.values())
        return await self._outbox.take(self._clock(), room=room, room_for_failing=room_for_failing)

    async def _work_off(self, due: Due) -> None:
        """Deliver this, and then one after the other whatever is due."""
        while True:
            try:
                await self._deliver(due)
                following = await self._take(1)
            except UNREACHABLE as error:  # the lease ends, and it is sent again
                _log.warning("notice.not_noted", notice_id=due.notice_id, error=repr(error))
                return
            if not following:
                return
            (due,) = following
            task = asyncio.current_task()
            assert task is not None  # this runs in one
            self._under_way[task] = due.failing_since is not None

    async def _deliver(self, due: Due) -> None:
        attempt = await self._attempt(due)
        disabled = await self._outbox.note(due, attempt)
        log = _log.bind(notice_id=due.notice_id, endpoint_id=due.endpoint_id, type=due.type, attempt=due.attempts)
        if attempt.error is None:
            log.info("notice.delivered", status_code=attempt.status_code, duration_ms=attempt.duration_ms)
        else:
            log.warning("notice.not_delivered", status_code=attempt.status_code, error=attempt.error)
        if disabled is not None:
            DISABLED.inc()
            log.warning("webhook_endpoint.disabled", reason=disabled)
        ATTEMPTS.labels(_result(attempt)).inc()

    async def _attempt(self, due: Due) -> Attempt:
        began = self._clock()
        started = asyncio.get_running_loop().time()
        status_code, error, retry_after = await self._post(due, began)
        duration_ms = round((asyncio.get_running_loop().time() - started) * 1000)
        failures = due.failures + 1
        again = None
        if error is not None and status_code != GONE and due.type != TEST:
            again = next_try(failures, began, asked=asked_pause(retry_after, began))
        return Attempt(
            at=began,
            status_code=status_code,
            error=error,
            duration_ms=duration_ms,
            status="delivered" if error is None else "failed" if again is None else "waiting",
            next_try_at=again or began,
            disables="its receiver answered 410 Gone" if status_code == GONE else None,
        )

    async def _post(self, due: Due, now: datetime) -> tuple[int | None, str | None, str | None]:
        """(status code, what went wrong, Retry-After): nothing went wrong when the receiver answered 2xx."""
        try:
            url = self._targets.parsed(due.url)
            headers = signed_headers(due.notice_id, due.body, now, self._secrets_of(due, now))
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.post(url, data=due.body.encode(), headers=headers, allow_redirects=False) as answer,
            ):
                error = None if 200 <= answer.status < 300 else _refusal(answer.status)
                return answer.status, error, answer.headers.get("Retry-After")
        except TimeoutError:
            return None, f"no answer within {self._timeout_s:g} s", None
        except (TargetRefused, SecretUnreadable) as refused:
            return None, str(refused), None
        except (aiohttp.ClientError, OSError, ValueError) as failure:
            return None, _failure(failure), None

    def _secrets_of(self, due: Due, now: datetime) -> list[str]:
        """What to sign with, the newest first. Raises SecretUnreadable."""
        signing = [self._secrets.open(due.secret)]
        if due.former_secret is not None and due.former_secret_until is not None and now < due.former_secret_until:
            try:
                signing.append(self._secrets.open(due.former_secret))
            except SecretUnreadable:
                _log.warning("webhook_endpoint.former_secret_unreadable", endpoint_id=due.endpoint_id)
        return signing


@asynccontextmanager
async def open_courier(config: CourierConfig, ledger: Ledger, clock: Callable[[], datetime]) -> AsyncIterator[Courier]:
    """A courier, until it is left; then what was begun is finished."""
    connector = aiohttp.TCPConnector(
        limit=AT_ONCE,
        force_close=True,  # each delivery connects anew, to an address that was looked at
        use_dns_cache=False,
        resolver=TargetResolver(),
        socket_factory=config.targets.socket,
    )
    session = aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Content-Type": "application/json", "User-Agent": "Tollgate"},
        skip_auto_headers=["Accept-Encoding"],
        max_line_size=MAX_HEADER,
        max_field_size=MAX_HEADER,
    )
    async with session:
        courier = Courier(Outbox(ledger), session, config, clock)
        try:
            yield courier
        finally:
            await courier.close()


def _result(attempt: Attempt) -> str:
    if attempt.disables is not None:
        return "gone"
    return {"delivered": "delivered", "waiting": "postponed", "failed": "given_up"}[attempt.status]


def _refusal(status: int) -> str:
    if 300 <= status < 400:
        return f"answered {status}, and redirects are not followed"
    return f"answered {status}"


def _failure(failure: Exception) -> str:
    """What went wrong, for the account to read: of its own receiver, and no address of any other."""
    match failure:
        case aiohttp.ClientConnectorDNSError():
            return "the URL's host cannot be resolved"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "no TLS connection can be made: is its certificate valid?"
        case aiohttp.ClientConnectorError() if isinstance(failure.os_error, NotPublic):
            return str(failure.os_error)
        case aiohttp.ClientConnectorError():
            return "it cannot be connected to"
        case aiohttp.ServerDisconnectedError():
            return "it hung up without an answer"
        case _:
            return f"its answer cannot be read ({type(failure).__name__})"
