"""Whose an address is, and which an account gets.

An address is derived from an extended public key by BIP-32, so that nothing here can spend what is sent to it. Its path
below the key is ``<log shard>/<index>``: with one shard and the key of the account ``m/44'/60'/0'`` that is the path by
which wallets find it. It is the same on every chain. Which account has which is said by events alone.
"""

import re

import msgspec
from bip32 import BIP32
from coincurve import PublicKey
from Cryptodome.Hash import keccak

from accounts import account_of
from ledger import AssignDepositAddress, Ledger, load_queries
from payments.errors import AddressesUsedUp

#: Of one account; each one more is one more that every look at a chain asks for.
MOST_ADDRESSES = 20

#: The first of the two numbers of the advisory lock under which an index is chosen; the second is the shard.
_INDEX_LOCK = 0x7564  # "ud"

_ADDRESS = re.compile("0x[0-9a-fA-F]{40}")
_queries = load_queries("payments.usdc")


class DepositKey:
    """An extended public key (``xpub…``) as wallets export it."""

    def __init__(self, xpub: str) -> None:
        """Raises ValueError when it is none, above all when it is a private one."""
        if xpub[:4] in ("xprv", "yprv", "zprv", "tprv"):
            raise ValueError("it is an extended private key: nobody who can read it may be able to spend deposits")
        if not xpub.startswith("xpub"):
            raise ValueError("it does not begin with xpub")
        self._key = BIP32.from_xpub(xpub)
        self.fingerprint = self._key.get_fingerprint().hex()

    def address(self, shard: int, index: int) -> str:
        """With its checksum (EIP-55)."""
        public_key = PublicKey(self._key.get_pubkey_from_path([shard, index]))
        return _with_checksum(_keccak(public_key.format(compressed=False)[1:])[-40:])


def checksummed(address: str) -> str:
    """The address with its checksum. Raises ValueError when it is none, or has a wrong one."""
    digits = address.removeprefix("0x")
    if not _ADDRESS.fullmatch(address):
        raise ValueError(f"{address!r} is no address")
    known = _with_checksum(digits.lower())
    if digits not in (digits.lower(), digits.upper()) and address != known:
        raise ValueError(f"the checksum of {address} is wrong")
    return known


def _with_checksum(digits: str) -> str:
    """By EIP-55: a letter is large where the hash of all of them has a digit from 8 on.

    Written out here, because the libraries that have it bring a fifth more memory into each serving process.
    """
    of_hash = _keccak(digits.encode())
    return "0x" + "".join(
        digit.upper() if int(of_hash[place], 16) >= 8 else digit for place, digit in enumerate(digits)
    )


def _keccak(of: bytes) -> str:
    return keccak.new(digest_bits=256, data=of).hexdigest()


class Assigned(msgspec.Struct, frozen=True, kw_only=True):
    """An address of an account."""

    index: int
    address: str
    key_fingerprint: str


class DepositAddresses:
    """Gives out addresses below one key. Any number of processes may."""

    def __init__(self, ledger: Ledger, key: DepositKey) -> None:
        self._ledger = ledger
        self._key = key

    async def of_account(self, account_id: str) -> str:
        """The account's newest address below the key; its first when it has none yet.

        Raises accounts.AccountNotFound, ledger.LedgerUnavailable and one of ledger.UNREACHABLE.
        """
        await account_of(self._ledger, account_id)
        assigned = await self._newest(account_id)
        return self._checked(account_id, assigned) if assigned else await self._assign(account_id, at_most=1)

    async def one_more(self, account_id: str) -> str:
        """Another address; deposits to the ones before count as they did. Raises AddressesUsedUp; as ``of_account``."""
        await account_of(self._ledger, account_id)
        return await self._assign(account_id, at_most=MOST_ADDRESSES)

    async def _assign(self, account_id: str, *, at_most: int) -> str:
        shard = self._ledger.shard(account_id)
        # The lock is held until the event is committed, by the ledger's own connection: so an index is used once.
        async with self._ledger.pool.acquire() as connection, connection.transaction():
            await connection.execute(_queries["lock_deposit_indexes"], _INDEX_LOCK, shard)
            before = await connection.fetch(_queries["addresses_of_account"], shard, account_id, self._key.fingerprint)
            if len(before) >= at_most:
                if at_most == 1:  # another process was first
                    return self._checked(account_id, Assigned(**before[0]))
                raise AddressesUsedUp(f"an account has at most {at_most} addresses")
            index: int = await connection.fetchval(_queries["next_deposit_index"], shard)
            address = self._key.address(shard, index)
            await self._ledger.submit(
                AssignDepositAddress(
                    stream_id=account_id,
                    index=index,
                    address=address,
                    key_fingerprint=self._key.fingerprint,
                    idempotency_key=f"{self._key.fingerprint}:{index}",
                )
            )
        return address

    async def _newest(self, account_id: str) -> Assigned | None:
        shard = self._ledger.shard(account_id)
        found = await self._ledger.pool.fetchrow(
            _queries["addresses_of_account"], shard, account_id, self._key.fingerprint
        )
        return None if found is None else Assigned(**found)

    def _checked(self, account_id: str, assigned: Assigned) -> str:
        """The address, if the key still gives it: nobody is shown one that the seller could not spend from."""
        address = self._key.address(self._ledger.shard(account_id), assigned.index)
        if address != assigned.address:
            raise RuntimeError(f"{assigned.address} was assigned to {account_id}, and its key gives {address} now")
        return address


class AddressBook:
    """All addresses that were ever assigned, below whatever key, kept in memory by whoever watches chains."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._read_to = dict.fromkeys(range(ledger.shards), -1)  # the last index of each shard
        self.accounts: dict[str, str] = {}  # by address

    async def refresh(self) -> None:
        """Read what was assigned since. An index is committed before the next one is: nothing is missed."""
        for shard, last in self._read_to.items():
            for row in await self._ledger.pool.fetch(_queries["assigned_addresses"], shard, last):
                self.accounts[row["address"]] = row["account_id"]
                self._read_to[shard] = row["index"]
