"""What was stored once must be readable for ever, and read back as what was stored."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.events import Charge, Event, HoldDrawn, HoldSettled, HoldSettledLate, decode_event, encode_event
from tests import strategies

#: Payloads as this version of the software stored them, one a line. Lines are added, never changed or taken away:
#: rows like these stand in customers' logs.
STORED = Path(__file__).with_name("golden_events.jsonl").read_text().splitlines()
KINDS = {kind.__struct_config__.tag: kind for kind in Event.__args__}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_every_event_type_has_a_stored_payload_in_the_golden_file(kind: Any) -> None:
    stored = [decode_event(line) for line in STORED]
    optional = {name for name in kind.__struct_fields__ if name not in _required(kind)}

    examples = [event for event in stored if isinstance(event, kind)]

    assert examples
    # Between them they show every field, and, where a field may be left out, the payload without it.
    shown = {name for event in examples for name in optional if getattr(event, name) != _default(kind, name)}
    assert optional == shown
    assert not optional or any(_is_minimal(event, optional) for event in examples)


@pytest.mark.parametrize("line", STORED)
def test_a_stored_payload_is_still_read_without_loss(line: str) -> None:
    event = decode_event(line)

    assert line == encode_event(event).decode()


@pytest.mark.parametrize("line", STORED)
def test_a_stored_payload_without_any_one_of_its_required_fields_is_refused(line: str) -> None:
    fields = msgspec.json.decode(line)
    for name in _required(KINDS[fields["type"]]):
        without = {key: value for key, value in fields.items() if key != name}
        with pytest.raises(msgspec.ValidationError, match=name):
            decode_event(msgspec.json.encode(without).decode())


@pytest.mark.parametrize("line", STORED)
def test_a_payload_of_a_later_version_is_read_without_the_fields_we_do_not_know(line: str) -> None:
    later = line[:-1] + ',"a_field_of_tomorrow":{"a":[1]}}'

    assert decode_event(line) == decode_event(later)


@given(strategies.events)
def test_every_event_reads_back_as_what_was_written(event: Any) -> None:
    assert event == decode_event(encode_event(event).decode())


@given(st.one_of([strategies.events_of(kind) for kind in (HoldSettled, HoldSettledLate, HoldDrawn)]))
def test_a_usage_keeps_its_numbers_and_their_kinds(event: Charge) -> None:
    read: Any = decode_event(encode_event(event).decode())

    assert _kinds(event.usage) == _kinds(read.usage)


def test_a_fraction_in_a_usage_is_a_json_number_and_never_a_float() -> None:
    line = next(line for line in STORED if "audio_seconds" in line)

    event: Any = decode_event(line)

    assert '"audio_seconds":12.50' in line
    assert Decimal("12.50") == event.usage["audio_seconds"]
    assert isinstance(event.usage["audio_seconds"], Decimal)


@pytest.mark.parametrize(
    "payload",
    [
        "{}",
        '{"type":"hold.refunded","hold_id":"hold_1"}',
        '{"type":"credit.granted","amount_microcents":1.5,"reason":"r","granted_by":"u"}',
        '{"type":"credit.granted","amount_microcents":"1","reason":"r","granted_by":"u"}',
        '{"type":"credit.granted","amount_microcents":null,"reason":"r","granted_by":"u"}',
        '{"type":"key.created","key_id":7}',
    ],
)
def test_what_is_no_event_is_not_read_as_one(payload: str) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_event(payload)


def test_event_types_are_nouns_with_a_verb_in_the_past() -> None:
    assert all(
        tag.count(".") == 1 and tag.removesuffix("_late").endswith(("ed", "drawn", "paid", "pending")) for tag in KINDS
    )


def _required(kind: Any) -> list[str]:
    return [field.encode_name for field in msgspec.structs.fields(kind) if field.required]


def _default(kind: Any, name: str) -> Any:
    field = next(field for field in msgspec.structs.fields(kind) if field.name == name)
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def _is_minimal(event: Any, optional: set[str]) -> bool:
    return all(getattr(event, name) == _default(type(event), name) for name in optional)


def _kinds(value: Any) -> Any:
    match value:
        case dict():
            return {key: _kinds(inner) for key, inner in value.items()}
        case list():
            return [_kinds(inner) for inner in value]
        case _:
            return type(value), str(value)
