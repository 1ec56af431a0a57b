"""The short form of ``make faults``: one seed, a few seconds of load."""

from tests.faults.campaign import Plan, run

#: Workers killed and told to stop, Postgres killed, cut off and silent, clocks that step, and more.
SEED = 139
SECONDS = 20


async def test_every_charge_is_what_was_served_whatever_breaks_meanwhile() -> None:
    result = await run(Plan(seed=SEED, seconds=SECONDS, clients=16))

    assert [str(violation) for violation in result.violations] == []
    assert result.endings["whole"] > 0
    assert result.purchases > 0
    assert result.faults.total() == len(result.schedule) > 0
