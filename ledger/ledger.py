"""The ledger as the other rooms see it: submit a command, read a state."""

from datetime import datetime

import asyncpg

from ledger import reading
from ledger.commands import Command
from ledger.committer import MAX_WAITING, RETRY_FOR_S, TRY_TIMEOUT_S, Clock, Committer, Connect
from ledger.events import StoredEvent
from ledger.group import Committed
from ledger.reading import Balance, shard_of
from ledger.state import AccountState, HoldState, KeyState, TopupState


class Ledger:
    """One process's way to the books: one committer for each log shard, and a pool for reading."""

    def __init__(self, pool: asyncpg.Pool, committers: list[Committer], clock: Clock) -> None:
        self.pool = pool
        self._committers = committers
        self._clock = clock

    @classmethod
    async def open(
        cls,
        pool: asyncpg.Pool,
        connect: Connect,
        clock: Clock,
        *,
        retry_for_s: float = RETRY_FOR_S,
        try_timeout_s: float = TRY_TIMEOUT_S,
        max_waiting: int = MAX_WAITING,
    ) -> "Ledger":
        """Start the committers. ``connect`` gives each of them a connection of its own."""
        committers = [
            Committer(
                connect,
                shard=shard,
                clock=clock,
                retry_for_s=retry_for_s,
                try_timeout_s=try_timeout_s,
                max_waiting=max_waiting,
            )
            for shard in range(await reading.count_shards(pool))
        ]
        for committer in committers:
            committer.start()
        return cls(pool, committers, clock)

    async def close(self) -> None:
        """Commit what was submitted, then stop."""
        for committer in self._committers:
            await committer.close()

    @property
    def shards(self) -> int:
        return len(self._committers)

    def shard(self, stream_id: str) -> int:
        """The log shard that the stream is in."""
        return shard_of(stream_id, self.shards)

    @property
    def waiting(self) -> int:
        """Commands that wait for their group."""
        return sum(committer.waiting for committer in self._committers)

    async def submit(self, command: Command) -> Committed:
        """Carry a command out, durably; see ``Committer.submit``."""
        return await self._committers[self.shard(command.stream_id)].submit(command)

    async def account(self, account_id: str) -> AccountState | None:
        """The account as it is now: a hold can take what it has available."""
        account = await reading.account_state(self.pool, self.shard(account_id), account_id)
        return None if account is None else account.as_of(self._clock())

    async def accounts_to_top_up(self) -> list[AccountState]:
        """The accounts of all shards whose available balance is below the threshold of their automatic top-ups."""
        return [a for shard in range(self.shards) for a in await reading.accounts_to_top_up(self.pool, shard)]

    async def keys(self, account_id: str) -> list[KeyState]:
        return await reading.keys_of_account(self.pool, self.shard(account_id), account_id)

    async def open_holds(self, account_id: str) -> list[HoldState]:
        return await reading.open_holds_of_account(self.pool, self.shard(account_id), account_id)

    async def topup(self, account_id: str, topup_id: str) -> TopupState | None:
        return await reading.topup_state(self.pool, self.shard(account_id), account_id, topup_id)

    async def topups(self, account_id: str, *, before: str | None = None, limit: int = 100) -> list[TopupState]:
        """Newest first; ``before`` is the id of the last one that the caller has."""
        shard = self.shard(account_id)
        return await reading.topups_of_account(self.pool, shard, account_id, before=before, limit=limit)

    async def balance_as_of(self, account_id: str, at: datetime) -> Balance:
        return await reading.balance_as_of(self.pool, self.shard(account_id), account_id, at)

    async def stream(self, stream_id: str, *, after_seq: int = 0) -> list[StoredEvent]:
        return await reading.stream_events(self.pool, self.shard(stream_id), stream_id, after_seq=after_seq)

    async def events_of_hold(self, account_id: str, hold_id: str) -> list[StoredEvent]:
        return await reading.events_of_hold(self.pool, self.shard(account_id), account_id, hold_id)
