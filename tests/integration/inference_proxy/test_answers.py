"""Stored answers: of all requests with the same Idempotency-Key one is served and charged, and the others are told."""

import asyncio
import hashlib
import itertools
from datetime import timedelta
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from inference_proxy.answers import CLAIM_FOR, MAX_KEPT, AnswerStore, StoredAnswer
from ledger import Ledger
from tests.unit.ledger.scenes import A, B, expire, grant, open_account, place, settle, void
from wire import ApiError

HELLO = hashlib.sha256(b"/v1/chat/completions hello").digest()
BYE = hashlib.sha256(b"/v1/chat/completions bye").digest()


@pytest_asyncio.fixture
async def answers(ledger: Ledger) -> AnswerStore:
    """Of two accounts with credit."""
    for account in (A, B):
        await ledger.submit(open_account(account))
        await ledger.submit(grant(10**9, account=account))
    return AnswerStore(ledger)


def answer(hold_id: str, body: bytes = b'{"id": "1"}') -> StoredAnswer:
    return StoredAnswer(hold_id, 200, "application/json", {"x-tollgate-hold-id": hold_id, "x-model": "ü"}, body)


async def refusal(answers: AnswerStore, *claim: Any) -> ApiError:
    with pytest.raises(ApiError) as raised:
        await answers.claim(*claim)
    return raised.value


def is_to_be_tried_again(error: ApiError) -> bool:
    assert error.code == "conflict"
    return error.headers["x-should-retry"] == "true"


async def let_pass(admin: asyncpg.Connection, time: timedelta) -> None:
    """As if all keys had been claimed so much earlier: by Postgres' own clock, which nobody here can set."""
    await admin.execute("UPDATE stored_answers SET claimed_at = claimed_at - $1::interval", time)


async def serve(answers: AnswerStore, ledger: Ledger, hold_id: str, *, body: bytes = b'{"id": "1"}') -> StoredAnswer:
    """Claim key_1 and do all that the gate does for a request that goes well."""
    assert await answers.claim(A, "key_1", HELLO, hold_id) is None
    await ledger.submit(place(hold_id, 100))
    given = answer(hold_id, body)
    await answers.keep(A, "key_1", hold_id, given)
    await ledger.submit(settle(hold_id, 60))
    return given


async def test_the_same_request_again_is_given_the_answer_of_the_first(answers: AnswerStore, ledger: Ledger) -> None:
    given = await serve(answers, ledger, "hold_1", body=bytes(range(256)))

    again = [await answers.claim(A, "key_1", HELLO, f"hold_{n}") for n in (2, 3)]

    assert [given, given] == again
    assert await ledger.events_of_hold(A, "hold_2") == []


@pytest.mark.money_bug(21)
async def test_another_request_under_the_same_key_is_refused_whatever_became_of_the_first(
    answers: AnswerStore, ledger: Ledger
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    claimed = await refusal(answers, A, "key_1", BYE, "hold_2")
    await ledger.submit(place("hold_1", 100))
    served = await refusal(answers, A, "key_1", BYE, "hold_2")
    await ledger.submit(void("hold_1"))
    voided = await refusal(answers, A, "key_1", BYE, "hold_2")

    assert [error.code for error in (claimed, served, voided)] == ["idempotency_mismatch"] * 3
    assert {error.status for error in (claimed, served, voided)} == {409}
    assert {error.headers["x-should-retry"] for error in (claimed, served, voided)} == {"false"}


@pytest.mark.money_bug(21)
async def test_a_key_is_the_accounts_own(answers: AnswerStore, ledger: Ledger) -> None:
    await serve(answers, ledger, "hold_1")

    assert await answers.claim(B, "key_1", BYE, "hold_2") is None
    assert await answers.claim(A, "key_2", BYE, "hold_3") is None
    assert is_to_be_tried_again(await refusal(answers, B, "key_1", BYE, "hold_4"))


async def test_while_the_first_is_served_the_next_is_told_to_try_again(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    claimed = await refusal(answers, A, "key_1", HELLO, "hold_2")
    await ledger.submit(place("hold_1", 100))
    await let_pass(admin, 10 * CLAIM_FOR)
    placed = await refusal(answers, A, "key_1", HELLO, "hold_2")
    await answers.keep(A, "key_1", "hold_1", answer("hold_1"))
    kept = await refusal(answers, A, "key_1", HELLO, "hold_2")

    assert [is_to_be_tried_again(error) for error in (claimed, placed, kept)] == [True] * 3
    assert {error.headers["retry-after"] for error in (claimed, placed, kept)} == {"1"}


async def test_a_claim_whose_answer_was_lost_on_the_way_can_be_made_again_for_the_same_hold(
    answers: AnswerStore,
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None


async def test_of_twenty_that_claim_at_once_one_serves(answers: AnswerStore, ledger: Ledger) -> None:
    for key in ("key_1", "key_2", "key_3"):
        claims = [answers.claim(A, key, HELLO, f"hold_{key}_{n}") for n in range(20)]
        outcomes = await asyncio.gather(*claims, return_exceptions=True)

        assert outcomes.count(None) == 1
        refused = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
        assert [is_to_be_tried_again(error) for error in refused] == [True] * 19


@pytest.mark.parametrize("end", [void, expire], ids=["voided", "expired"])
async def test_of_twenty_that_take_over_a_key_whose_hold_ended_without_a_charge_one_serves(
    answers: AnswerStore, ledger: Ledger, end: Any
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await ledger.submit(place("hold_1", 100))
    await answers.keep(A, "key_1", "hold_1", answer("hold_1"))
    await ledger.submit(end("hold_1"))

    claims = [answers.claim(A, "key_1", HELLO, f"taker_{n}") for n in range(20)]
    outcomes = await asyncio.gather(*claims, return_exceptions=True)

    assert outcomes.count(None) == 1
    refused = [outcome for outcome in outcomes if isinstance(outcome, ApiError)]
    assert [is_to_be_tried_again(error) for error in refused] == [True] * 19
    taker = f"taker_{outcomes.index(None)}"
    await ledger.submit(place(taker, 100))
    await ledger.submit(settle(taker, 60))
    assert not is_to_be_tried_again(await refusal(answers, A, "key_1", HELLO, "hold_2"))  # nor is the old answer given


async def test_a_claim_without_a_hold_is_taken_over_when_its_time_is_out(
    answers: AnswerStore, admin: asyncpg.Connection
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await let_pass(admin, CLAIM_FOR / 2)
    too_early = await refusal(answers, A, "key_1", HELLO, "hold_2")
    await let_pass(admin, CLAIM_FOR / 2)

    assert is_to_be_tried_again(too_early)
    assert await answers.claim(A, "key_1", HELLO, "hold_2") is None
    assert is_to_be_tried_again(await refusal(answers, A, "key_1", HELLO, "hold_3"))


async def test_who_took_too_long_to_place_its_hold_finds_that_the_key_is_anothers(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await let_pass(admin, CLAIM_FOR)
    assert await answers.claim(A, "key_1", HELLO, "hold_2") is None

    await ledger.submit(place("hold_1", 100))

    assert not await answers.confirm(A, "key_1", "hold_1")
    assert await answers.confirm(A, "key_1", "hold_2")


async def test_a_claim_that_was_confirmed_is_not_taken_over_by_who_saw_it_before(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection
) -> None:
    """Twenty look at the stale claim while its hold is placed and confirmed: none of them may have the key."""
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await let_pass(admin, CLAIM_FOR)

    async def place_and_confirm() -> bool:
        await ledger.submit(place("hold_1", 100))
        return await answers.confirm(A, "key_1", "hold_1")

    claims = [answers.claim(A, "key_1", HELLO, f"hold_{number}") for number in range(2, 22)]
    confirmed, *claimed = await asyncio.gather(place_and_confirm(), *claims, return_exceptions=True)

    assert [confirmed, *claimed].count(True) + claimed.count(None) == 1


async def test_a_hold_that_was_settled_late_was_charged(answers: AnswerStore, ledger: Ledger) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await ledger.submit(place("hold_1", 100))
    await answers.keep(A, "key_1", "hold_1", answer("hold_1"))
    await ledger.submit(expire("hold_1"))
    await ledger.submit(settle("hold_1", 60))

    assert answer("hold_1") == await answers.claim(A, "key_1", HELLO, "hold_2")


@pytest.mark.parametrize("is_too_large", [False, True])
async def test_a_charge_whose_answer_is_not_kept_is_never_made_again(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection, is_too_large: bool
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await ledger.submit(place("hold_1", 100))
    if is_too_large:
        await answers.keep(A, "key_1", "hold_1", answer("hold_1", b"x" * (MAX_KEPT + 1)))
    await ledger.submit(settle("hold_1", 60))
    await let_pass(admin, 10 * CLAIM_FOR)

    error = await refusal(answers, A, "key_1", HELLO, "hold_2")

    assert not is_to_be_tried_again(error)
    assert error.fields == {"hold_id": "hold_1"}


async def test_the_largest_answer_that_is_kept_is_given_again(answers: AnswerStore, ledger: Ledger) -> None:
    given = await serve(answers, ledger, "hold_1", body=b"x" * MAX_KEPT)

    assert given == await answers.claim(A, "key_1", HELLO, "hold_2")


async def test_a_key_that_was_released_runs_anew_whatever_it_asks(answers: AnswerStore, ledger: Ledger) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await answers.release(A, "key_1", "hold_1")

    assert await answers.claim(A, "key_1", BYE, "hold_2") is None


async def test_who_lost_the_key_can_neither_keep_an_answer_nor_release_it(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection
) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None
    await let_pass(admin, CLAIM_FOR)
    given = await serve(answers, ledger, "hold_2")

    await answers.keep(A, "key_1", "hold_1", answer("hold_1"))
    await answers.release(A, "key_1", "hold_1")

    assert given == await answers.claim(A, "key_1", HELLO, "hold_3")


async def test_answers_are_forgotten_after_their_time_and_not_before(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection
) -> None:
    given = await serve(answers, ledger, "hold_1")
    assert await answers.claim(A, "key_2", HELLO, "hold_2") is None
    claimed_at = await admin.fetchval("SELECT claimed_at FROM stored_answers WHERE idempotency_key = 'key_1'")

    too_early = await answers.purge(claimed_at)
    again = await answers.claim(A, "key_1", HELLO, "hold_3")
    in_time = await answers.purge(claimed_at + timedelta(microseconds=1))

    assert (too_early, in_time) == (0, 1)
    assert given == again
    assert [row["idempotency_key"] for row in await admin.fetch("SELECT * FROM stored_answers")] == ["key_2"]
    assert await answers.claim(A, "key_1", BYE, "hold_4") is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE stored_answers SET request_hash = ''",
        "UPDATE stored_answers SET account_id = 'acct_b'",
        "UPDATE stored_answers SET idempotency_key = 'key_2'",
        "TRUNCATE stored_answers",
    ],
)
async def test_the_application_cannot_make_a_key_stand_for_another_request(pool: asyncpg.Pool, statement: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await pool.execute(statement)


async def test_an_answer_is_stored_whole_or_not_at_all(answers: AnswerStore, admin: asyncpg.Connection) -> None:
    assert await answers.claim(A, "key_1", HELLO, "hold_1") is None

    with pytest.raises(asyncpg.CheckViolationError):
        await admin.execute("UPDATE stored_answers SET status = 200, body = ''")


_examples = itertools.count()
KEYS = ("key_1", "key_2")
REQUESTS = (HELLO, BYE)

acts = st.sampled_from(("place", "place", "keep", "settle", "settle", "void", "expire", "release"))
#: How a try goes on that got the key, as far as it comes at once.
courses = st.sampled_from(
    (
        (),
        ("place",),
        ("place", "keep", "settle"),
        ("place", "settle"),
        ("place", "void"),
        ("place", "keep", "expire"),
        ("place", "expire", "settle"),
    )
)
#: A claim and what follows from it; something that the last try which got a key does, or the one before; time.
steps = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.sampled_from(KEYS), st.sampled_from((HELLO, HELLO, HELLO, BYE)), courses),
        st.tuples(acts, st.sampled_from(KEYS), st.sampled_from((0, 0, 0, 1)), st.just(())),
        st.tuples(st.just("wait"), st.just(""), st.sampled_from((CLAIM_FOR / 2, CLAIM_FOR)), st.just(())),
    ),
    max_size=20,
)


class Keys:
    """What keys stand for, on paper."""

    def __init__(self) -> None:
        self.claims: dict[str, tuple[bytes, str, timedelta]] = {}  # request, hold, when it was claimed
        self.holds: dict[str, str] = {}  # placed ones: open, charged, free
        self.kept: set[str] = set()  # holds whose answer was kept while they had their key
        self.now = timedelta()

    def claim(self, key: str, request: bytes, hold_id: str) -> str:
        """What a claim gives: ours, again, mismatch, lost; else it is to be tried again."""
        if key in self.claims:
            bound_to, former, claimed_at = self.claims[key]
            if bound_to != request:
                return "mismatch"
            if self.holds.get(former) == "charged":
                return f"again {former}" if former in self.kept else f"lost {former}"
            if self.holds.get(former) == "open" or (former not in self.holds and self.now < claimed_at + CLAIM_FOR):
                return "later"
            self.kept.discard(former)
        self.claims[key] = request, hold_id, self.now
        return "ours"

    def has(self, key: str, hold_id: str) -> bool:
        return key in self.claims and self.claims[key][1] == hold_id

    def ends(self, hold_id: str, by: str) -> bool:
        """Whether the end is carried out; what expired can be settled late."""
        before = self.holds.get(hold_id)
        possible = before == "open" or (by == "settle" and before == "expired")
        if possible:
            self.holds[hold_id] = {"settle": "charged", "void": "free", "expire": "expired"}[by]
        return possible


async def claimed(answers: AnswerStore, key: str, request: bytes, hold_id: str) -> str:
    """What came of a claim, in the words of the model."""
    try:
        given = await answers.claim(A, key, request, hold_id)
    except ApiError as error:
        if error.code == "idempotency_mismatch":
            return "mismatch"
        return "later" if is_to_be_tried_again(error) else f"lost {error.fields['hold_id']}"
    if given is None:
        return "ours"
    assert given == answer(given.hold_id)
    return f"again {given.hold_id}"


@settings(max_examples=250)
@given(steps=steps)
async def test_whatever_tries_do_a_key_stands_for_what_the_model_says(
    answers: AnswerStore, ledger: Ledger, admin: asyncpg.Connection, steps: list[tuple[str, str, Any, tuple[str, ...]]]
) -> None:
    prefix, model = f"{next(_examples)}_", Keys()
    await admin.execute("TRUNCATE stored_answers")
    tries: dict[str, list[str]] = {prefix + key: [] for key in KEYS}  # that got the key, the last one first
    for number, (what, name, detail, course) in enumerate(steps):
        key = prefix + name
        if what == "wait":
            await let_pass(admin, detail)
            model.now += detail
        elif what == "claim":
            hold_id = f"hold_{prefix}{number}"
            expected = model.claim(key, detail, hold_id)

            assert expected == await claimed(answers, key, detail, hold_id)
            if expected == "ours":
                tries[key].insert(0, hold_id)
                for each in course:
                    await act(answers, ledger, model, each, key, hold_id)
        elif detail < len(tries[key]):
            await act(answers, ledger, model, what, key, tries[key][detail])


async def act(answers: AnswerStore, ledger: Ledger, model: Keys, what: str, key: str, hold_id: str) -> None:
    """Do it, and on paper."""
    match what:
        case "place":
            if hold_id not in model.holds:
                await ledger.submit(place(hold_id, 100, lifetime_s=10**6))
                model.holds[hold_id] = "open"
        case "keep":
            await answers.keep(A, key, hold_id, answer(hold_id))
            if model.has(key, hold_id):
                model.kept.add(hold_id)
        case "release":
            await answers.release(A, key, hold_id)
            if model.has(key, hold_id):
                del model.claims[key]
                model.kept.discard(hold_id)
        case _:
            if model.ends(hold_id, what):
                await ledger.submit({"settle": lambda h: settle(h, 60), "void": void, "expire": expire}[what](hold_id))
