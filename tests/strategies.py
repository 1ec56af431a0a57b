"""What hypothesis may come up with: commands over few ids and awkward amounts, events of every type, moments."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, get_args

from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import (
    PRICE_BOOK,
    AdjustBalance,
    AssignDepositAddress,
    AutomaticTopup,
    ChangeAutomaticTopup,
    ChangePlan,
    CreateKey,
    CreditTopup,
    DeleteKey,
    DrawHold,
    ExpireGrant,
    ExpireHold,
    ExpireTopup,
    ExtendHold,
    FailTopup,
    GrantCredit,
    MarkTopupPending,
    OpenAccount,
    Paid,
    PlaceHold,
    PriceRef,
    RecordPriceEvent,
    ReinstateTopup,
    RequestTopup,
    RerateCharge,
    ReverseTopup,
    SettleHold,
    VoidHold,
)
from ledger import events as e
from ledger import providers as p
from ledger.money import MAX_AMOUNT

PRICE = PriceRef(program="list", version=1, digest="ab" * 32)

#: The last second of a year: a step of one second changes the month, the year and the key's budget.
NEW_YEARS_EVE = datetime(2027, 12, 31, 23, 59, 59, tzinfo=UTC)

ACCOUNTS = ("acct_a", "acct_b")
KEYS = ("key_1", "key_2", "key_3")
HOLDS = ("hold_1", "hold_2", "hold_3", "hold_4", "hold_5")
TOPUPS = ("topup_1", "topup_2", "topup_3")

account_ids = st.sampled_from(ACCOUNTS)
#: Often the one account that the others' ids belong to as well, so that sequences get somewhere.
likely_account_ids = st.sampled_from((ACCOUNTS[0], ACCOUNTS[0], ACCOUNTS[0], ACCOUNTS[1]))
key_ids = st.sampled_from(KEYS)
hold_ids = st.sampled_from(HOLDS)
small_amounts = st.integers(min_value=0, max_value=120)
odd_amounts = st.sampled_from((-1, 0, 1, MAX_AMOUNT, MAX_AMOUNT + 1, -MAX_AMOUNT))
amounts = st.one_of(small_amounts, small_amounts, small_amounts, odd_amounts)
usages = st.sampled_from(({}, {"tokens": 3}, {"tokens": 4, "seconds": Decimal("1.50")}, {"": "ü\n"}))
seconds = st.integers(min_value=0, max_value=90)
#: Requests per minute whose interval is a whole number of microseconds, so that a model can be exact.
limits_rpm = st.sampled_from((0, 1, 2, 3, 6, 60))

#: How far the clock moves between two groups. It also stands still, and is stepped back.
clock_steps = st.sampled_from(
    [timedelta(seconds=s) for s in (0, 0, 0, 1, 1, 7, 20, 59, 60, -1, -30, -3600)]
    + [timedelta(microseconds=1), timedelta(days=1), timedelta(days=31)]
)


def place_hold(**fields: Any) -> PlaceHold:
    """A hold of the given fields; all others are filled in."""
    defaults: dict[str, Any] = {
        "operation": "chat.completions",
        "model": "m",
        "price": PRICE,
        "worker_id": 7,
        "lifetime_s": 60,
    }
    return PlaceHold(**{**defaults, **fields})


def rerate_charge(**fields: Any) -> RerateCharge:
    return RerateCharge(**{"price": PRICE, "reason": "wrong version", "rerated_by": "user_1", **fields})


def grant_credit(**fields: Any) -> GrantCredit:
    return GrantCredit(**{"reason": "trial", "granted_by": "user_1", **fields})


def adjust_balance(**fields: Any) -> AdjustBalance:
    return AdjustBalance(**{"reason": "goodwill", "adjusted_by": "user_1", **fields})


opens = st.builds(OpenAccount, stream_id=account_ids, currency=st.sampled_from(("USD", "USD", "EUR")))
#: Soon after the sequences begin, and some before.
expiries_of_grants = st.sampled_from((-1, 0, 1, 7, 20, 60, 61, 90, 86_400, 2_700_000)).map(
    lambda s: NEW_YEARS_EVE + timedelta(seconds=s)
)
grants = st.builds(
    grant_credit,
    stream_id=likely_account_ids,
    amount_microcents=amounts,
    idempotency_key=st.sampled_from("abcdefghij"),
    expires_at=st.none() | expiries_of_grants,
    priority=st.sampled_from((50, 50, 50, 0, 100, 101)),
)
#: Of a grant that there is not; those of grants that there are follow from the books.
grant_expiries = st.builds(ExpireGrant, stream_id=likely_account_ids, grant_id=st.just("grant_unknown"))
adjustments = st.builds(
    adjust_balance,
    stream_id=likely_account_ids,
    amount_microcents=st.one_of(small_amounts, small_amounts.map(lambda amount: -amount), odd_amounts),
    idempotency_key=st.sampled_from("abcd"),
)
#: Mostly none, so that most holds are priced for the plan that the account is on.
plans = st.sampled_from((None, None, None, None, "pro"))
plan_changes = st.builds(
    ChangePlan,
    stream_id=likely_account_ids,
    plan=plans,
    changed_by=st.just("user_1"),
    idempotency_key=st.sampled_from("abc"),
)
automatic_topups = st.builds(AutomaticTopup, threshold=amounts, amount=amounts, monthly_cap=amounts)
automatic_topup_changes = st.builds(
    ChangeAutomaticTopup,
    stream_id=likely_account_ids,
    automatic_topup=st.none() | automatic_topups,
    changed_by=st.just("user_1"),
    idempotency_key=st.sampled_from("abc"),
)
address_assignments = st.builds(
    AssignDepositAddress,
    stream_id=likely_account_ids,
    index=st.integers(0, 2**31 - 1),
    address=st.just("0x00"),
    key_fingerprint=st.just("00000000"),
    idempotency_key=st.sampled_from("abc"),
)
key_creations = st.builds(
    CreateKey,
    stream_id=likely_account_ids,
    key_id=key_ids,
    rate_limit_rpm=st.none() | limits_rpm,
    monthly_budget_microcents=st.none() | amounts,
)
key_deletions = st.builds(DeleteKey, stream_id=likely_account_ids, key_id=key_ids)
placings = st.builds(
    place_hold,
    stream_id=likely_account_ids,
    hold_id=hold_ids,
    amount_microcents=amounts,
    key_id=st.none() | key_ids,
    lifetime_s=seconds,
    plan=plans,
)
extensions = st.builds(
    ExtendHold, stream_id=likely_account_ids, hold_id=hold_ids, total_microcents=amounts, lifetime_s=seconds
)
draws = st.builds(
    DrawHold,
    stream_id=likely_account_ids,
    hold_id=hold_ids,
    reference=st.sampled_from(("task_1", "task_2")),
    amount_microcents=amounts,
    usage=usages,
)
settlements = st.builds(
    SettleHold,
    stream_id=likely_account_ids,
    hold_id=hold_ids,
    amount_microcents=amounts,
    usage=usages,
    key_id=st.none() | key_ids,
)
voids = st.builds(VoidHold, stream_id=likely_account_ids, hold_id=hold_ids, reason=st.just("backend_failed"))
expiries = st.builds(
    ExpireHold,
    stream_id=likely_account_ids,
    hold_id=hold_ids,
    reason=st.just("time_limit"),
    overdue_at=st.sampled_from((None, NEW_YEARS_EVE, NEW_YEARS_EVE + timedelta(days=2))),
)
reratings = st.builds(
    rerate_charge,
    stream_id=likely_account_ids,
    hold_id=hold_ids,
    reference=st.sampled_from((None, "task_1", "task_2")),
    ordinal=st.sampled_from((1, 1, 1, 2, 2, 3, 0)),
    amount_microcents=amounts,
    key_id=st.none() | key_ids,
)
topup_ids = st.sampled_from(TOPUPS)
#: Mostly the same, so that most payments are what was asked for.
providers = st.sampled_from(("stripe", "stripe", "stripe", "usdc"))
payments = st.sampled_from(
    [Paid("USD", Decimal("1.50"))] * 5 + [Paid("USD", Decimal("1.49")), Paid("EUR", Decimal("1.50"))]
)
payment_ids = st.sampled_from(("pi_1", "pi_2", "pi_3"))
topup_requests = st.builds(
    RequestTopup,
    stream_id=likely_account_ids,
    topup_id=topup_ids,
    provider=providers,
    amount_microcents=amounts,
    asked=payments | st.just(Paid("USD", Decimal(0))),
    requested_by=st.just("user_1"),
    idempotency_key=st.sampled_from("abcdef"),
)
creditings = st.builds(
    CreditTopup,
    stream_id=likely_account_ids,
    topup_id=topup_ids,
    provider=providers,
    payment_id=payment_ids,
    paid=payments,
)
reversal_kinds = st.sampled_from(("refund", "dispute", "dispute", "reorganisation"))
_taken_back: dict[str, st.SearchStrategy[Any]] = {
    "stream_id": likely_account_ids,
    "topup_id": topup_ids,
    "kind": reversal_kinds,
    "total_microcents": amounts,
    "reason": st.sampled_from(("one", "another")),
}
reversals = st.builds(ReverseTopup, **_taken_back)
reinstatements = st.builds(ReinstateTopup, **_taken_back)
topup_commands = st.one_of(
    *(topup_requests, topup_requests, creditings, creditings, reversals, reversals, reinstatements),
    st.builds(
        MarkTopupPending,
        stream_id=likely_account_ids,
        topup_id=topup_ids,
        reference=st.sampled_from(("cs_1", "cs_2")),
    ),
    st.builds(
        FailTopup, stream_id=likely_account_ids, topup_id=topup_ids, reason=st.sampled_from(("declined", "cancelled"))
    ),
    st.builds(ExpireTopup, stream_id=likely_account_ids, topup_id=topup_ids),
)
hold_commands = st.one_of(extensions, draws, draws, settlements, voids, expiries, reratings)
account_commands = st.one_of(
    *(opens, grants | grant_expiries, adjustments, plan_changes | automatic_topup_changes),
    *(key_creations, key_deletions),
    *(placings, placings, placings, hold_commands),
)

texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20)
moments = st.integers(min_value=-(10**15), max_value=10**16).map(
    lambda microseconds: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=microseconds)
)
booked = st.integers(min_value=0, max_value=MAX_AMOUNT)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(min_value=-(2**70), max_value=2**70) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=5,
)
recorded_usages = st.dictionaries(
    texts, json_values | st.decimals(allow_nan=False, allow_infinity=False, places=6), max_size=4
)
paid = st.builds(Paid, texts, st.decimals(min_value="0.000001", max_value=10**9, places=6))
prices = st.builds(PriceRef, program=texts, version=st.integers(min_value=1, max_value=2**31 - 1), digest=texts)
shares = st.lists(
    st.builds(
        e.GrantShare,
        grant_id=texts,
        amount_microcents=booked,
        priority=st.integers(min_value=0, max_value=100),
        expires_at=st.none() | moments,
    ),
    max_size=2,
).map(tuple)
_fields: dict[str, st.SearchStrategy[Any]] = {
    "amount_microcents": booked,
    "held_microcents": booked,
    "released_microcents": booked,
    "before_microcents": booked,
    "after_microcents": booked,
    "charged_microcents": booked,
    "refunded_microcents": booked,
    "total_microcents": booked,
    "in_transit_microcents": booked,
    "paid_microcents": booked,
    "happened_at": moments,
    "asked": paid,
    "paid": paid,
    "kind": reversal_kinds,
    "charge_seq": st.integers(min_value=1, max_value=2**62),
    "ordinal": st.integers(min_value=1, max_value=10_000),
    "index": st.integers(min_value=0, max_value=2**31 - 1),
    "overrun_microcents": booked,
    "debt_microcents": booked,
    "credited_microcents": booked,
    "debited_microcents": booked,
    "monthly_budget_microcents": st.none() | booked,
    "threshold_microcents": st.none() | booked,
    "monthly_cap_microcents": st.none() | booked,
    "priority": st.integers(min_value=0, max_value=100),
    "from_grants": shares,
    "grants_moved": shares,
    "rate_limit_rpm": st.none() | st.integers(min_value=1, max_value=10_000),
    "version": st.integers(min_value=1, max_value=10_000),
    "worker_id": st.integers(min_value=0, max_value=2**31 - 1),
    "price": prices,
    "usage": recorded_usages,
    "served": st.none() | recorded_usages,
    "retry_count": st.integers(min_value=0, max_value=10),
    "rate": st.decimals(min_value="0.000001", max_value=10**6, places=6),
    "exchange_rate": st.none() | st.decimals(min_value="0.000001", max_value=10**6, places=6),
    "plan": st.none() | texts,
    "placed_at": moments,
    "expires_at": moments,
    "effective_from": moments,
    "effective_until": st.none() | moments,
    "next_arrival": st.none() | moments,
}
_optional_texts = ("key_id", "request_id", "backend", "operation", "plan", "account_id")


break_kinds = st.sampled_from(get_args(p.BreakKind))


def events_of(kind: Any) -> st.SearchStrategy[Any]:
    """Any event of one type, with every field filled."""
    fields = {name: _fields.get(name, texts) for name in kind.__struct_fields__}
    if kind is p.BreakResolved:
        fields["kind"] = break_kinds
    return st.builds(kind, **fields)


events = st.one_of([events_of(kind) for kind in e.Event.__args__])

price_events = st.builds(
    e.ProgramPublished,
    program=st.just("list"),
    version=st.integers(min_value=1, max_value=3),
    text=st.just("…"),
    digest=st.just("cd" * 32),
    published_by=st.just("user_1"),
)
price_commands = st.builds(
    lambda event: RecordPriceEvent(stream_id=PRICE_BOOK, event=event, idempotency_key=f"list@{event.version}"),
    price_events,
)
#: Deposit addresses are in no sequence that is stored: whoever makes them up twice breaks a unique constraint.
commands = st.one_of(account_commands, account_commands, account_commands, price_commands | address_assignments)

_of_a_payout: dict[str, st.SearchStrategy[Any]] = {
    "stream_id": st.sampled_from((p.provider_stream("stripe"), p.provider_stream("stripe"), p.provider_stream("usdc"))),
    "payout_id": st.sampled_from(("po_1", "po_2", "po_3")),
}
payout_initiations = st.builds(
    p.InitiatePayout,
    **_of_a_payout,
    amount_microcents=amounts,
    currency=st.sampled_from(("USD", "USD", "EUR")),
    happened_at=st.just(NEW_YEARS_EVE),
)
provider_commands = st.one_of(
    *(payout_initiations, payout_initiations),
    st.builds(p.PayPayout, **_of_a_payout),
    st.builds(p.FailPayout, **_of_a_payout, reason=st.just("failed")),
    st.builds(
        p.ChargeProcessorFee,
        stream_id=_of_a_payout["stream_id"],
        reference=st.sampled_from(("txn_1", "txn_2", "txn_3")),
        currency=st.sampled_from(("USD", "USD", "EUR")),
        amount_microcents=st.one_of(amounts, small_amounts.map(lambda amount: -amount)),
        happened_at=st.just(NEW_YEARS_EVE),
    ),
    st.builds(
        p.ResolveBreak,
        stream_id=_of_a_payout["stream_id"],
        provider=st.sampled_from(("stripe", "stripe", "usdc")),
        break_id=st.sampled_from(("brk_1", "brk_2")),
        kind=break_kinds,
        reason=st.just("asked them"),
        resolved_by=st.just("ann"),
    ),
)


def prefixed(command: Any, prefix: str) -> Any:
    """The same command about ids that no other example uses."""
    ids = {
        name: prefix + value
        for name in ("stream_id", "key_id", "hold_id", "topup_id", "payment_id")
        if (value := getattr(command, name, None)) is not None
    }
    return replace(command, **ids)
