"""A group: commands in order of arrival, a refusal touches nobody else, the same command twice has one effect."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger.errors import LedgerCorrupt
from ledger.state import Books
from tests import strategies
from tests.unit.ledger.paper_log import PaperLog, as_bytes
from tests.unit.ledger.scenes import (
    NOON,
    A,
    B,
    Scene,
    adjust,
    create_key,
    delete_key,
    draw,
    expire,
    extend,
    funded,
    grant,
    open_account,
    place,
    publish,
    rerate,
    settle,
    void,
)

#: A command, what has to be there before it, and the same command with other content where that is to be refused.
REPEATABLE = [
    (open_account(B), [], open_account(B, "EUR"), "IdempotencyMismatch"),
    (grant(7, "g"), [], grant(8, "g"), "IdempotencyMismatch"),
    (adjust(-7, "a"), [], adjust(7, "a"), "IdempotencyMismatch"),
    (create_key("key_2", rpm=1), [], create_key("key_2", rpm=2), "IdempotencyMismatch"),
    (delete_key(), [create_key()], None, ""),
    (place("hold_1", 100), [], place("hold_1", 99), "IdempotencyMismatch"),
    (place("hold_1", 100), [], place("hold_1", 100, lifetime_s=61), "IdempotencyMismatch"),
    (place("hold_1", 100), [], place("hold_1", 100, model="other"), "IdempotencyMismatch"),
    (place("hold_1", 100), [], place("hold_1", 100, retry_count=1), "IdempotencyMismatch"),
    (draw("hold_1", 5), [place("hold_1", 9)], draw("hold_1", 4), "IdempotencyMismatch"),
    (settle("hold_1", 5), [place("hold_1", 9)], settle("hold_1", 4), "HoldAlreadyEnded"),
    (settle("hold_1", 5), [place("hold_1", 9)], settle("hold_1", 5, usage={"tokens": 2}), "HoldAlreadyEnded"),
    (settle("hold_1", 5), [place("hold_1", 9)], void("hold_1"), "HoldAlreadyEnded"),
    (void("hold_1"), [place("hold_1", 9)], settle("hold_1", 0), "HoldAlreadyEnded"),
    (void("hold_1"), [place("hold_1", 9)], expire("hold_1"), "HoldAlreadyEnded"),
    (expire("hold_1"), [place("hold_1", 9)], void("hold_1"), "HoldAlreadyEnded"),
    (settle("hold_1", 5), [place("hold_1", 9), expire("hold_1")], settle("hold_1", 4), "HoldAlreadyEnded"),
    (rerate("hold_1", 7), [place("hold_1", 9), settle("hold_1", 5)], rerate("hold_1", 8), "IdempotencyMismatch"),
    (
        rerate("hold_1", 7, reference="task_1"),
        [place("hold_1", 9), draw("hold_1", 5)],
        rerate("hold_1", 2, reference="task_1"),
        "IdempotencyMismatch",
    ),
    (publish(1), [], replace(publish(2), idempotency_key="list@1"), "IdempotencyMismatch"),
]


@pytest.mark.parametrize(("command", "first", "other", "refusal"), REPEATABLE)
def test_a_command_again_in_a_later_group_finds_its_first_event(
    command: Any, first: list[Any], other: Any, refusal: str
) -> None:
    scene = funded(100, *first)
    kind, stored = scene.submit(command)
    after = as_bytes(scene.log.books)

    again = scene.submit(command)

    assert ("accepted", ("replayed", stored)) == (kind, again)
    assert after == as_bytes(scene.log.books)
    assert other is None or refusal == type(scene.refusal(other)).__name__


@pytest.mark.parametrize(("command", "first", "other", "refusal"), REPEATABLE)
def test_a_command_twice_in_one_group_has_one_event(command: Any, first: list[Any], other: Any, refusal: str) -> None:
    scene = funded(100, *first)
    events = len(scene.log.events)

    one, two = scene.group(command, command)

    assert ("accepted", "replayed", one[1]) == (one[0], two[0], two[1])
    assert events + 1 == len(scene.log.events)


@pytest.mark.parametrize(("command", "first", "other", "refusal"), REPEATABLE)
def test_other_content_in_the_same_group_is_refused(command: Any, first: list[Any], other: Any, refusal: str) -> None:
    scene = funded(100, *first)
    events = len(scene.log.events)

    one, *two = scene.group(*([command] if other is None else [command, other]))

    assert one[0] == "accepted"
    assert [refusal] * len(two) == [type(detail).__name__ for _, detail in two]
    assert events + 1 == len(scene.log.events)


def test_a_hold_placed_again_is_a_replay_even_where_a_new_one_would_be_refused() -> None:
    scene = funded(100, create_key(rpm=1, budget=100))
    command = place("hold_1", 100, key_id="key_1")
    _, first = scene.submit(command)

    now_without_funds = scene.submit(command)
    scene.submit(delete_key())
    now_without_its_key = scene.submit(command)
    scene.submit(settle("hold_1", 100))
    ended_by_now = scene.submit(command)

    assert [("replayed", first)] * 3 == [now_without_funds, now_without_its_key, ended_by_now]


def test_a_draw_again_is_a_replay_even_after_the_hold_ended() -> None:
    scene = funded(100, place("hold_1", 9))
    _, first = scene.submit(draw("hold_1", 5))
    scene.submit(settle("hold_1", 1))

    assert ("replayed", first) == scene.submit(draw("hold_1", 5))
    assert type(scene.refusal(draw("hold_1", 1, "task_2"))).__name__ == "HoldAlreadyEnded"


@pytest.mark.money_bug(20)
@pytest.mark.parametrize(
    "usage",
    [
        {"seconds": Decimal("1.50")},
        {"seconds": 1.5, "sizes": (1, 2)},
        {"big": 2**80, "nothing": None, "flag": True},
        {"": {"nested": [{"a": Decimal("0.1")}]}},
    ],
)
def test_settling_again_finds_the_first_end_whatever_the_usage_is_made_of(usage: dict[str, Any]) -> None:
    scene = funded(100, place("hold_1", 9))
    _, first = scene.submit(settle("hold_1", 5, usage=usage))

    assert ("replayed", first) == scene.submit(settle("hold_1", 5, usage=usage))


@pytest.mark.parametrize("command", [draw("hold_1", 1), extend("hold_1", 50), settle("hold_1", 3), void("hold_1")])
def test_an_ended_hold_takes_no_other_command_in_its_own_group_or_later(command: Any) -> None:
    scene = funded(100, place("hold_1", 9))

    results = scene.group(settle("hold_1", 2), command)
    later = scene.refusal(command)

    assert "HoldAlreadyEnded" == type(results[1][1]).__name__ == type(later).__name__
    assert later.ended_by == "HoldSettled"


@pytest.mark.money_bug(20)
@pytest.mark.parametrize("end", [settle("hold_1", 1), void("hold_1"), expire("hold_1"), extend("hold_1", 1)])
def test_a_hold_that_was_never_placed_is_unknown(end: Any) -> None:
    assert type(funded(100).refusal(end)).__name__ == "HoldUnknown"


@pytest.mark.parametrize("end", [settle("hold_1", 1), void("hold_1"), expire("hold_1")])
def test_the_ended_hold_of_another_account_is_unknown_too(end: Any) -> None:
    scene = funded(100, open_account(B), place("hold_1", 9))

    in_the_same_group = scene.group(end, replace(end, stream_id=B))[1][1]
    later = scene.refusal(replace(end, stream_id=B))

    assert [type(in_the_same_group).__name__, type(later).__name__] == ["HoldUnknown"] * 2


def test_each_command_sees_what_the_ones_before_it_left() -> None:
    scene = Scene()

    results = scene.group(
        open_account(),
        place("too_early", 1),
        grant(10),
        place("hold_1", 10),
        place("too_late", 1),
        settle("hold_1", 4),
        place("hold_2", 6),
    )

    assert [k for k, _ in results] == ["accepted", "refused", "accepted", "accepted", "refused", "accepted", "accepted"]
    assert [stored.seq for stored in scene.log.events] == [1, 2, 3, 4, 5]
    assert scene.money() == (0, 6, 0)


@given(st.lists(strategies.commands, min_size=1, max_size=12))
def test_one_group_decides_as_the_same_commands_one_by_one(commands: list[Any]) -> None:
    begin = [open_account(), grant(100, "first"), create_key(rpm=2, budget=80)]
    together, single = PaperLog(), PaperLog()

    in_one = together.submit([*begin, *commands], NOON)
    one_by_one = [single.submit([command], NOON)[0] for command in [*begin, *commands]]

    assert [(kind, str(detail)) for kind, detail in one_by_one] == [(kind, str(detail)) for kind, detail in in_one]
    assert as_bytes(single.books) == as_bytes(together.books)


@given(st.lists(strategies.commands, min_size=1, max_size=12))
def test_the_rows_to_write_are_exactly_the_states_that_changed(commands: list[Any]) -> None:
    log = PaperLog()
    log.submit([open_account(), grant(100, "first"), create_key(), place("hold_5", 10)], NOON)
    before = Books()
    before.accounts, before.keys, before.holds = dict(log.books.accounts), dict(log.books.keys), dict(log.books.holds)
    group = log.group(NOON)

    group.decide(commands)

    for kind, changed in (
        ("accounts", group.changed_accounts),
        ("keys", group.changed_keys),
        ("holds", group.placed_holds | group.changed_holds),
    ):
        old, new = getattr(before, kind), getattr(group.books, kind)
        assert {i for i in new if new[i] != old.get(i)} <= changed
        assert changed <= new.keys()
    assert not group.placed_holds & before.holds.keys()
    assert group.changed_holds <= before.holds.keys()
    assert before.holds.keys() - group.books.holds.keys() <= group.ended_holds
    assert not group.ended_holds & group.changed_holds & before.holds.keys()


@pytest.mark.parametrize(
    "command",
    [
        replace(grant(1, "k"), reason="a\0b"),
        replace(settle("hold_1", 1), usage={"a\0": 1}),
        replace(settle("hold_1", 1), usage={"deep": [{"x": "\0"}]}),
        replace(settle("hold_1", 1), backend="\\\0"),
        replace(draw("hold_1", 1), reference="\0"),
        place("hold_2", 1, model="m\0"),
    ],
)
def test_a_nul_character_anywhere_is_refused_since_postgres_could_not_read_it_back(command: Any) -> None:
    scene = funded(100, place("hold_1", 9))

    assert type(scene.refusal(command)).__name__ == "NotStorable"


@pytest.mark.parametrize("text", ["\\u0000", "\\\\u0000", "u0000", "\\", "\\n\n\t\x01\x7f", "𝄞", "ü"])
def test_a_text_that_only_looks_like_a_nul_character_is_stored(text: str) -> None:
    scene = funded(100)

    kind, _ = scene.submit(replace(grant(1, "k"), reason=text))

    assert kind == "accepted"
    assert text == scene.last().reason


def test_books_that_break_a_rule_stop_the_command_instead_of_guessing() -> None:
    scene = funded(100, place("hold_1", 60), place("hold_2", 40))
    account = scene.log.books.accounts[A]
    scene.log.books.accounts[A] = replace(account, held=account.held - 50)

    with pytest.raises(LedgerCorrupt, match="held below zero"):
        scene.submit(settle("hold_1", 0))
