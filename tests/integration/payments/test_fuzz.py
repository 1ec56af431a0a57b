"""The short form of ``make fuzz-webhooks``."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import given, settings

from ledger import Ledger
from tests.conftest import Clock

from .alipay_till import open_alipay_till
from .conftest import Till
from .fuzzing import Attack, Target, attacks
from .fuzzing_alipay import AlipayAttack, AlipayTarget, alipay_attacks
from .fuzzing_usdc import UsdcAttack, UsdcTarget, open_usdc_target, usdc_attacks


@pytest_asyncio.fixture
async def target(till: Till) -> Target:
    return await Target.prepare(till)


@settings(max_examples=300)
@given(attack=attacks)
async def test_no_webhook_that_was_made_up_or_altered_is_believed_or_breaks_anything(
    target: Target, attack: Attack
) -> None:
    await target.suffer(attack)


@pytest_asyncio.fixture
async def alipay_target(ledger: Ledger, clock: Clock) -> AsyncIterator[AlipayTarget]:
    async with open_alipay_till(ledger, clock) as till:
        yield await AlipayTarget.prepare(till)


@settings(max_examples=200)
@given(attack=alipay_attacks)
async def test_no_notification_of_alipay_that_was_made_up_or_altered_is_believed_or_breaks_anything(
    alipay_target: AlipayTarget, attack: AlipayAttack
) -> None:
    await alipay_target.suffer(attack)


@pytest_asyncio.fixture
async def usdc_target(ledger: Ledger, clock: Clock) -> AsyncIterator[UsdcTarget]:
    async with open_usdc_target(ledger, clock) as target:
        yield target


@settings(max_examples=200)
@given(attack=usdc_attacks)
async def test_no_push_of_a_node_provider_does_more_than_have_its_chain_looked_at(
    usdc_target: UsdcTarget, attack: UsdcAttack
) -> None:
    await usdc_target.suffer(attack)


@pytest.mark.money_bug(49)
async def test_what_the_altered_events_are_made_from_is_not_believed_either(target: Target) -> None:
    for event in target.events:
        await target.till.tell(event)

    # What was processed is that a card was saved.
    assert {status for status, _ in await target.till.outcomes()} == {"broken", "ignored", "processed"}
    assert await target.till.credited(target.payer) == 0
