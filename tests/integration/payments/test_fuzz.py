"""The short form of ``make fuzz-webhooks``."""

import pytest
import pytest_asyncio
from hypothesis import given, settings

from .conftest import Till
from .fuzzing import Attack, Target, attacks


@pytest_asyncio.fixture
async def target(till: Till) -> Target:
    return await Target.prepare(till)


@settings(max_examples=300)
@given(attack=attacks)
async def test_no_webhook_that_was_made_up_or_altered_is_believed_or_breaks_anything(
    target: Target, attack: Attack
) -> None:
    await target.suffer(attack)


@pytest.mark.money_bug(49)
async def test_what_the_altered_events_are_made_from_is_not_believed_either(target: Target) -> None:
    for event in target.events:
        await target.till.tell(event)

    assert {status for status, _ in await target.till.outcomes()} == {"broken", "ignored"}
    assert await target.till.credited(target.payer) == 0
