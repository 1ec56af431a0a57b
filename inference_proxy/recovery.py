"""Settles what dead processes left in their write-ahead files.

A record is a settlement as it would have to be submitted if its process died now. How far the process had come with
it does not matter, nor how often it is recovered: the ledger settles a hold once, and the same settlement again is a
replay. So a file is kept until each of its records is known to be settled or refused.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from decimal import Decimal
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec
import structlog

from inference_proxy.metrics import RECOVERED
from inference_proxy.write_ahead import AbandonedFile, write_ahead_files
from ledger import Committed, LedgerUnavailable, Refused, SettleHold

#: Sooner than the sweep ends the holds of a dead process, as a rule; a settlement that comes later counts as well.
RECOVER_EVERY_S = 1.0
#: Settlements submitted at once: enough for one group, and few beside what may wait for the ledger.
AT_ONCE = 256

Submit: TypeAlias = Callable[[SettleHold], Awaitable[Committed]]
Outcome: TypeAlias = Literal["recovered", "settled_before", "refused", "failed", "unavailable"]

_log = structlog.get_logger(__name__)

#: A record of the write-ahead file; exact both ways, as the ledger's encoding of events is.
encode_settlement = msgspec.json.Encoder(decimal_format="number").encode
_decode = msgspec.json.Decoder(SettleHold, float_hook=Decimal).decode


async def recover(directory: Path, submit: Submit) -> int:
    """Settle what the dead have left in this directory; returns how many holds were settled by it.

    Any number of processes may do so at once: each file is one's at a time. What Postgres is away for stays for the
    next time. A settlement that the ledger refuses is dropped, because the hold ended otherwise; a file with anything
    in it that is no settlement is set aside, once the rest of it is settled.
    """
    recovered = 0
    for path in write_ahead_files(directory):
        try:
            recovered += await _recover_file(path, submit)
        except OSError as error:
            _log.error("write_ahead_file.not_recovered", file=path.name, error=repr(error))
    return recovered


async def recover_regularly(directory: Path, submit: Submit) -> None:
    """Recover once a second until cancelled, whatever goes wrong."""
    while True:
        try:
            await recover(directory, submit)
        except Exception:
            _log.exception("recovery.failed")
        await asyncio.sleep(RECOVER_EVERY_S)


async def _recover_file(path: Path, submit: Submit) -> int:
    file = AbandonedFile.take(path)
    if file is None:
        return 0
    try:
        return await _settle_all(file, submit)
    finally:
        file.release()


async def _settle_all(file: AbandonedFile, submit: Submit) -> int:
    outcomes: Counter[Outcome] = Counter()
    for start in range(0, len(file.records), AT_ONCE):
        some = file.records[start : start + AT_ONCE]
        outcomes.update(await asyncio.gather(*[_settle(record, submit) for record in some]))
        if outcomes["unavailable"]:
            _log.warning("recovery.postponed", file=file.path.name, records=len(file.records))
            return outcomes["recovered"]
    if file.is_damaged or outcomes["failed"]:
        _log.error("write_ahead_file.broken", file=file.set_aside().name, outcomes=dict(outcomes))
    else:
        file.remove()
        _log.info("write_ahead_file.recovered", file=file.path.name, outcomes=dict(outcomes))
    return outcomes["recovered"]


async def _settle(record: bytes, submit: Submit) -> Outcome:
    outcome = await _submit(record, submit)
    if outcome in ("recovered", "refused", "failed"):
        RECOVERED.labels(outcome).inc()
    return outcome


async def _submit(record: bytes, submit: Submit) -> Outcome:
    try:
        command = _decode(record)
    except (msgspec.DecodeError, RecursionError) as error:
        _log.error("settlement.not_recovered", error=repr(error))
        return "failed"
    log = _log.bind(account_id=command.stream_id, hold_id=command.hold_id)
    try:
        committed = await submit(command)
    except LedgerUnavailable:
        return "unavailable"
    except Refused as refusal:  # ended otherwise before, or by a settlement that had come further
        log.warning("settlement.not_recovered", reason=str(refusal))
        return "refused"
    except Exception:  # one settlement that the books cannot take must not keep the others from them
        log.exception("settlement.not_recovered")
        return "failed"
    if committed.replayed:
        return "settled_before"
    log.info("settlement.recovered", amount_microcents=command.amount_microcents)
    return "recovered"
