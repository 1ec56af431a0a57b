"""Credit grants of one account: what charges take of them, and what becomes of them when they expire.

Pure. ``grants`` are always all open grants of an account, in the order in which charges take from them.

Charges take from grants first, then from paid money; which holds are paid by what is not known before they end. So what
is held leans on the grants in the order of consumption. A grant that expires is split: what open holds lean on stays
there for them (``left``), and the rest has lapsed: nobody can spend it, and ``grant.expired`` takes it off the books.
Only holds of before the expiry can take what is left. As they end, what they no longer need of it lapses too. They take
it before anything else, so that no end of a hold makes less available than there was.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec
from msgspec.structs import replace

from ledger.errors import LedgerCorrupt
from ledger.events import GrantShare
from ledger.money import ZERO, Microcents

#: Open grants of an account: they stand in its row, which every hold reads and writes.
MAX_OPEN_GRANTS: Final = 64
_NEVER = datetime.max.replace(tzinfo=UTC)


class Grant(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An open credit grant."""

    grant_id: str
    left: Microcents  # that charges can still take; when it has expired, those of holds of before
    priority: int  # the lower, the earlier it is spent
    expires_at: datetime | None = None  # None = never
    lapsed: Microcents = ZERO  # that nobody can spend any more, and that is still on the books
    leaning: Microcents | None = None  # what open holds of before its expiry hold; None = it has not expired

    @property
    def has_expired(self) -> bool:
        return self.leaning is not None

    def may_pay(self, placed_at: datetime) -> bool:
        """Whether a hold that was placed then may lean on it."""
        return self.expires_at is None or placed_at < self.expires_at


def grant_id_of(account_id: str, idempotency_key: str) -> str:
    """The id of the grant that a key stands for: the same key is the same grant."""
    return "grant_" + hashlib.sha256(f"{account_id}:{idempotency_key}".encode()).hexdigest()[:26]


def due_at(grants: Iterable[Grant]) -> datetime | None:
    """When ``grant.expired`` has to be written of one of them at the earliest; None = never, as it looks now."""
    moments = [g.expires_at for g in grants if g.expires_at is not None and (g.lapsed or not g.has_expired)]
    return min(moments, default=None)


def with_expired(grants: tuple[Grant, ...], at: datetime, *, held: Microcents) -> tuple[Grant, ...]:
    """The grants at a moment after the account's last event, when this much was held."""
    after, room = [], held
    for grant in grants:
        leant_on = min(grant.left, room)
        room = Microcents(room - leant_on)
        if grant.has_expired or grant.may_pay(at):
            after.append(grant)
        else:
            lapsed = Microcents(grant.left - leant_on)
            after.append(replace(grant, left=leant_on, lapsed=lapsed, leaning=held))
    return _in_order(after)


def with_granted(grants: tuple[Grant, ...], grant: Grant) -> tuple[Grant, ...]:
    """The grants and a new one."""
    return _in_order([*grants, grant])


def without_lapsed(grants: tuple[Grant, ...], grant_id: str, amount: Microcents) -> tuple[Grant, ...]:
    """The grants after so much of what has lapsed was taken off the books."""
    grant = _find(grants, grant_id)
    if grant is None or grant.lapsed < amount:
        raise LedgerCorrupt(f"{amount} microcents of grant {grant_id} expire, which have not lapsed")
    return _changed(grants, replace(grant, lapsed=Microcents(grant.lapsed - amount)))


def taken_by_charge(
    grants: tuple[Grant, ...], amount: Microcents, *, placed_at: datetime | None = None, held: Microcents = ZERO
) -> tuple[GrantShare, ...]:
    """What a charge takes of them. ``held`` of it was set aside at ``placed_at``; None = nothing was."""
    if not grants:
        return ()
    shares, rest, set_aside = [], amount, min(held, amount)
    for grant in grants:
        if not grant.has_expired:
            part = min(grant.left, rest)
        elif placed_at is not None and grant.may_pay(placed_at):
            part = min(grant.left, set_aside)
            set_aside = Microcents(set_aside - part)
        else:
            continue
        if part:
            rest = Microcents(rest - part)
            shares.append(_share(grant, part))
    return tuple(shares)


def moved_by_correction(
    grants: tuple[Grant, ...], shares: tuple[GrantShare, ...], *, amount: Microcents, more: int
) -> tuple[tuple[GrantShare, ...], tuple[GrantShare, ...]]:
    """What the correction of a charge moves, and what grants pay of the charge after it.

    The charge is ``amount``, of which grants pay ``shares``, and becomes so much ``more``, or less below zero. What is
    more is taken as by any charge. What is less goes to paid money first, as if the charge had been right at once; but
    not beyond what paid money had paid, or credit that nobody paid for could be refunded. The rest goes to the grants.
    """
    if more >= 0:
        taken = taken_by_charge(grants, Microcents(more))
        return taken, _sums(shares, taken, sign=1)
    from_paid = amount - sum(share.amount_microcents for share in shares)
    given_back, rest = [], max(-more - from_paid, 0)
    for share in reversed(shares):
        part = Microcents(min(share.amount_microcents, rest))
        rest -= part
        if part:
            given_back.append(replace(share, amount_microcents=part))
    return tuple(given_back), _sums(shares, given_back, sign=-1)


def after_taking(grants: tuple[Grant, ...], shares: Sequence[GrantShare]) -> tuple[Grant, ...]:
    """The grants after a charge took these shares. Raises LedgerCorrupt when they are not there."""
    for share in shares:
        grant = _find(grants, share.grant_id)
        if grant is None or grant.left < share.amount_microcents:
            raise LedgerCorrupt(f"{share.amount_microcents} microcents are taken of grant {share.grant_id}: too much")
        grants = _changed(grants, replace(grant, left=Microcents(grant.left - share.amount_microcents)))
    return grants


def after_giving_back(grants: tuple[Grant, ...], shares: Sequence[GrantShare], at: datetime) -> tuple[Grant, ...]:
    """The grants after a correction gave these shares back. What goes to a grant that has expired lapses at once."""
    for share in shares:
        amount = share.amount_microcents
        grant = _find(grants, share.grant_id)
        if grant is None:
            leaning = None if share.expires_at is None or at < share.expires_at else ZERO
            grant = Grant(
                grant_id=share.grant_id,
                left=ZERO,
                priority=share.priority,
                expires_at=share.expires_at,
                leaning=leaning,
            )
            grants = (*grants, grant)
        if grant.has_expired:
            grant = replace(grant, lapsed=Microcents(grant.lapsed + amount))
        else:
            grant = replace(grant, left=Microcents(grant.left + amount))
        grants = _in_order(_changed(grants, grant))
    return grants


def after_release(grants: tuple[Grant, ...], *, placed_at: datetime, released: int) -> tuple[Grant, ...]:
    """The grants after a hold that was placed then holds so much less; below zero: more, because it was extended."""
    after, leant_on = [], 0
    for grant in grants:
        if grant.leaning is None:
            after.append(grant)
            continue
        leaning = Microcents(max(grant.leaning - released, 0)) if grant.may_pay(placed_at) else grant.leaning
        # Holds lean on what expired first first: the fewest others can take it.
        left = Microcents(min(grant.left, max(leaning - leant_on, 0)))
        leant_on += left
        lapsed = Microcents(grant.lapsed + grant.left - left)
        after.append(replace(grant, left=left, lapsed=lapsed, leaning=leaning))
    return tuple(grant for grant in after if grant.left or grant.lapsed)


def _sums(shares: Iterable[GrantShare], moved: Iterable[GrantShare], *, sign: int) -> tuple[GrantShare, ...]:
    """Grant by grant, the shares with what was moved added, or taken away."""
    sums = {share.grant_id: share for share in shares}
    for share in moved:
        before = sums[share.grant_id].amount_microcents if share.grant_id in sums else 0
        amount = Microcents(before + sign * share.amount_microcents)
        sums[share.grant_id] = replace(share, amount_microcents=amount)
    return tuple(share for share in sums.values() if share.amount_microcents)


def _share(grant: Grant, amount: Microcents) -> GrantShare:
    return GrantShare(
        grant_id=grant.grant_id, amount_microcents=amount, priority=grant.priority, expires_at=grant.expires_at
    )


def _find(grants: Iterable[Grant], grant_id: str) -> Grant | None:
    return next((grant for grant in grants if grant.grant_id == grant_id), None)


def _changed(grants: Iterable[Grant], changed: Grant) -> tuple[Grant, ...]:
    after = (changed if grant.grant_id == changed.grant_id else grant for grant in grants)
    return tuple(grant for grant in after if grant.left or grant.lapsed)


def _in_order(grants: Iterable[Grant]) -> tuple[Grant, ...]:
    """In the order in which charges take from them: what expired, as it did, then by priority, expiry and age."""
    return tuple(sorted(grants, key=_turn))


def _turn(grant: Grant) -> tuple[int, datetime, int] | tuple[int, int, datetime]:
    expires_at = grant.expires_at or _NEVER
    return (0, expires_at, grant.priority) if grant.has_expired else (1, grant.priority, expires_at)
