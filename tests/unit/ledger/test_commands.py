"""An idempotency key is bound to what the command said, for ever: by a hash that later versions compute as well."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ledger import (
    PRICE_BOOK,
    AdjustBalance,
    AssignDepositAddress,
    ChangePlan,
    CreateKey,
    DeleteKey,
    DrawHold,
    ExpireHold,
    ExtendHold,
    GrantCredit,
    OpenAccount,
    RecordPriceEvent,
    RerateCharge,
    SettleHold,
    VoidHold,
)
from ledger.commands import request_hash
from ledger.events import ProgramRetired
from ledger.idempotency import idempotency_key_of
from tests import strategies
from tests.unit.ledger.scenes import (
    credit,
    expire_topup,
    fail_topup,
    mark_pending,
    reinstate,
    request_topup,
    reverse,
    top_up_below,
)

GRANT = GrantCredit(
    stream_id="acct_a", amount_microcents=1_000, reason="trial", granted_by="user_1", idempotency_key="k"
)
ADJUSTMENT = AdjustBalance(
    stream_id="acct_a", amount_microcents=-5, reason="duplicate", adjusted_by="user_1", idempotency_key="k"
)
DRAW = DrawHold(stream_id="acct_a", hold_id="hold_1", reference="t", amount_microcents=3, usage={"b": 1, "a": "2"})
CORRECTION = RerateCharge(
    stream_id="acct_a",
    hold_id="hold_1",
    ordinal=1,
    amount_microcents=5,
    price=strategies.PRICE,
    reason="wrong version",
    rerated_by="user_1",
)
RETIREMENT = RecordPriceEvent(
    stream_id=PRICE_BOOK,
    event=ProgramRetired(program="list", version=1, effective_from=strategies.NEW_YEARS_EVE, retired_by="user_1"),
    idempotency_key="k",
)

#: Hashes as this version of the software stored them. A changed one would refuse every repeated request of before.
STORED = [
    (
        OpenAccount(stream_id="acct_a", currency="USD"),
        "open",
        "0e56cf640ca4f2d5b5995c579a312611178080c5eee070bb4b9f26b5eacaf0dd",
    ),
    (GRANT, "grant:k", "2fec8e0069de0893ee5ad9f3c485b764dc2ea62e7b3575e8952f7bfd5ccf0406"),
    (ADJUSTMENT, "adjust:k", "878fdbc69995067e4ba88cb53c2e1cbab1ac7931d3e4329c6af4e046ae0f5094"),
    (
        CreateKey(stream_id="acct_a", key_id="key_1"),
        "key:key_1",
        "f259260c4d0938090bb692970a57765edae64279a8fd4cf90c67ec60c9fe34e0",
    ),
    (
        CreateKey(stream_id="acct_a", key_id="key_1", rate_limit_rpm=60),
        "key:key_1",
        "fa45873ee464a65860c28cd65b9ca47e1e666c5e30fe850e7cff946affa519cc",
    ),
    (
        DeleteKey(stream_id="acct_a", key_id="key_1"),
        "key-deleted:key_1",
        "642870bc9a1187e9e75ecf69de856ef31a395e675df1f5c35b08013cfb917b93",
    ),
    (DRAW, "draw:hold_1:t", "d7f59f764386d1598e8841b8ae4b90fe4b0e5d80cf561c2e988fd23a39c19e28"),
    (
        ChangePlan(stream_id="acct_a", plan="pro", changed_by="user_1", idempotency_key="k"),
        "plan:k",
        "0d9536f2d92b34967681aea4fe755b952ebfbb8fca603a620cc65f971786c7c9",
    ),
    (
        top_up_below(5, 20, 100, key="k"),
        "automatic-topup:k",
        "424b971ba57e6dadea0f7021e5eb4abd9a7abbef4be65e2886d0bd4249066828",
    ),
    (
        top_up_below(None, key="k"),
        "automatic-topup:k",
        "e8f5e82978a0a91a47e0765e4ae24749e6921226fa016c8c38d3c665f78b977f",
    ),
    (
        AssignDepositAddress(
            stream_id="acct_a", index=7, address="0x00", key_fingerprint="00000000", idempotency_key="k"
        ),
        "deposit-address:k",
        "0307138b66e1a3bcef127c9b18698cdc3063308fc823386d40bf47bd58ded5d7",
    ),
    (CORRECTION, "rerate:1:hold_1", "8eafb018670b69b2b87d7aca5d44f326e19932c4df681083f3ef0ae3e4ad8f56"),
    (
        replace(CORRECTION, ordinal=2, reference="t", key_id="key_1"),
        "rerate:2:hold_1:t",
        "9e5ac6d0309051aa2f3cf83dad71ca559f794db5e69ffd84d98fac83ee9513b7",
    ),
    (
        request_topup(key="k"),
        "topup:k",
        "cde1fafacc7dc207e93938a1f8eab3f273932cf2328147fff398fbf64e8d5bd8",
    ),
    (RETIREMENT, "price:k", "620ae8f6245d6ad4982a7ba6eb00f6fc550dd28bf6cb47251337f12da5532c63"),
]


@pytest.mark.parametrize(("command", "key", "stored"), STORED)
def test_a_stored_request_hash_is_still_that_of_the_same_command(command: Any, key: str, stored: str) -> None:
    assert key == idempotency_key_of(command)
    assert stored == request_hash(command).hex()


@given(strategies.commands | strategies.topup_commands, strategies.commands | strategies.topup_commands)
def test_two_commands_have_one_hash_only_when_they_say_the_same(one: Any, other: Any) -> None:
    assert (one == other) == (request_hash(one) == request_hash(other))


@given(st.permutations(["a", "b", "c", "d"]))
def test_the_order_in_which_a_usage_was_written_down_does_not_matter(order: list[str]) -> None:
    usage = {key: ord(key) for key in "abcd"}

    shuffled = {key: usage[key] for key in order}

    assert request_hash(replace(DRAW, usage=usage)) == request_hash(replace(DRAW, usage=shuffled))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (GRANT, replace(ADJUSTMENT, idempotency_key="k")),
        (replace(GRANT, idempotency_key="x"), replace(RETIREMENT, idempotency_key="x")),
        (replace(GRANT, idempotency_key="open"), OpenAccount(stream_id="acct_a", currency="USD")),
        (replace(CORRECTION, reference="t"), DRAW),
        (replace(CORRECTION, reference=""), CORRECTION),
        (CreateKey(stream_id="acct_a", key_id="k"), DeleteKey(stream_id="acct_a", key_id="k")),
    ],
)
def test_commands_of_two_kinds_never_share_an_idempotency_key(one: Any, other: Any) -> None:
    assert idempotency_key_of(one) != idempotency_key_of(other)


@pytest.mark.parametrize(
    "command",
    [
        strategies.place_hold(stream_id="a", hold_id="h", amount_microcents=1),
        ExtendHold(stream_id="a", hold_id="h", total_microcents=1, lifetime_s=1),
        SettleHold(stream_id="a", hold_id="h", amount_microcents=1, usage={}),
        VoidHold(stream_id="a", hold_id="h", reason="r"),
        ExpireHold(stream_id="a", hold_id="h", reason="r"),
    ],
)
def test_a_hold_is_remembered_by_its_id_and_needs_no_idempotency_key(command: Any) -> None:
    assert idempotency_key_of(command) is None


@pytest.mark.parametrize("command", [mark_pending(), credit(), reverse(1), reinstate(0), fail_topup(), expire_topup()])
def test_a_topup_is_remembered_by_its_id_and_needs_no_idempotency_key(command: Any) -> None:
    assert idempotency_key_of(command) is None
