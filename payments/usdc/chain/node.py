"""One node, asked by web3. Everything that it says is read into our own types at once, or it has failed.

A node can be anybody's: what it says is held against what was asked. Logs of other contracts, of other blocks, or that
are said to be removed are none.
"""

from collections.abc import Awaitable, Collection, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import aiohttp
from eth_utils.address import to_checksum_address
from web3 import AsyncHTTPProvider, AsyncWeb3
from web3.exceptions import BlockNotFound, TransactionNotFound, Web3Exception, Web3RPCError
from web3.middleware import ExtraDataToPOAMiddleware

from payments.usdc.chain.errors import NodeFailed, RangeRefused
from payments.usdc.config import Chain
from payments.usdc.deposits import Block, Transfer

#: keccak256("Transfer(address,address,uint256)"), of ERC-20.
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"
#: keccak256("decimals()"), its first four bytes.
_DECIMALS_CALL = "0x313ce567"
_DECIMALS = 6

#: Addresses of one question. Every transfer of the token would be fewer questions, and in each look thousands of
#: answers that are nobody's; nodes take at least a thousand topics.
ADDRESSES_AT_ONCE = 500

_MALFORMED = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)
T = TypeVar("T")


class Node:
    """One URL. Every method raises NodeFailed."""

    def __init__(self, chain: Chain, url: str) -> None:
        self.name = urlsplit(url).netloc.rpartition("@")[2]  # the rest of the URL may be a key
        self._chain = chain
        timeout = aiohttp.ClientTimeout(total=chain.timeout_s)
        # web3 would try again by itself; another node is asked instead.
        provider = AsyncHTTPProvider(url, request_kwargs={"timeout": timeout}, exception_retry_configuration=None)
        self._web3 = AsyncWeb3(provider)
        self._web3.middleware_onion.inject(ExtraDataToPOAMiddleware, layer=0)  # Polygon's blocks are longer
        self._is_known = False

    async def close(self) -> None:
        await self._web3.provider.disconnect()

    async def require_chain(self) -> None:
        """Raises NodeFailed when it is a node of another chain, or the token is not one of six decimals there."""
        chain_id = await self._asked(self._web3.eth.chain_id)
        if chain_id != self._chain.chain_id:
            raise NodeFailed(self.name, "wrong_chain", f"is of chain {chain_id}, not of {self._chain.chain_id}")
        if not self._is_known:
            said = await self._asked(
                self._web3.eth.call({"to": to_checksum_address(self._chain.token), "data": _DECIMALS_CALL})  # type: ignore[typeddict-item]
            )
            if len(said) != 32 or int.from_bytes(said) != _DECIMALS:
                raise NodeFailed(self.name, "wrong_token", f"{self._chain.token} is no token of six decimals there")
            self._is_known = True

    async def head(self) -> int:
        said = await self._asked(self._web3.eth.block_number)
        with _read(self.name):
            return _natural(said)

    async def block(self, number: int | Literal["finalized"]) -> tuple[Block, datetime] | None:
        """The block and its time; None when the node has none of that number."""
        try:
            said = await self._asked(self._web3.eth.get_block(number))
        except BlockNotFound:
            return None
        with _read(self.name):
            block = Block(_natural(said["number"]), _hash(said["hash"]))
            if isinstance(number, int) and block.number != number:
                raise ValueError(f"asked for block {number}, given {block.number}")
            return block, datetime.fromtimestamp(_natural(said["timestamp"]), UTC)

    async def transfers(self, addresses: Collection[str], first: int, last: int) -> list[Transfer]:
        """Transfers of the token to the addresses, of whatever amount above zero, in blocks first to last.

        Raises RangeRefused when it may give fewer blocks.
        """
        found = []
        wanted = sorted(addresses)
        for begin in range(0, len(wanted), ADDRESSES_AT_ONCE):
            part = wanted[begin : begin + ADDRESSES_AT_ONCE]
            for log in await self._logs(part, first, last):
                transfer = self._transfer(log)
                if transfer is None or transfer.address not in addresses:
                    continue
                if not first <= transfer.block_number <= last:
                    raise NodeFailed(
                        self.name, "senseless", f"a log of block {transfer.block_number} was not asked for"
                    )
                found.append(transfer)
        return found

    async def transfer(self, tx_hash: str, log_index: int) -> Transfer | None:
        """One transfer as its transaction's receipt has it, in a block that is the chain's; None when it is not so."""
        try:
            receipt = await self._asked(self._web3.eth.get_transaction_receipt(tx_hash))  # type: ignore[arg-type]
        except TransactionNotFound:
            return None
        with _read(self.name):
            transfers = [self._transfer(log) for log in receipt["logs"]] if receipt["status"] == 1 else []
        found = next((t for t in transfers if t is not None and t.log_index == log_index), None)
        if found is None or found.tx_hash != tx_hash:
            return None
        block = await self.block(found.block_number)
        return found if block is not None and block[0].hash == found.block_hash else None

    async def _logs(self, addresses: Iterable[str], first: int, last: int) -> list[Any]:
        question: Any = {
            "fromBlock": first,
            "toBlock": last,
            "address": self._chain.token,
            "topics": [TRANSFER_TOPIC, None, ["0x" + address[2:].lower().rjust(64, "0") for address in addresses]],
        }
        try:
            logs = await self._web3.eth.get_logs(question)
        except (Web3RPCError, TimeoutError, aiohttp.ClientResponseError) as error:
            # Every provider says it in other words, and some only by not answering.
            raise RangeRefused(self.name, "range", f"blocks {first} to {last}: {error!r}") from error
        except (Web3Exception, aiohttp.ClientError, OSError, *_MALFORMED) as error:
            raise NodeFailed(self.name, "unavailable", repr(error)) from error
        return list(logs)

    def _transfer(self, log: Any) -> Transfer | None:
        """A log as a transfer; None when it is of another contract or event, of nothing, or removed."""
        with _read(self.name):
            topics = [topic.to_0x_hex() for topic in log["topics"]]
            if log.get("removed") or len(topics) != 3 or topics[0] != TRANSFER_TOPIC:
                return None
            if to_checksum_address(log["address"]) != self._chain.token:
                return None
            units = int.from_bytes(log["data"])
            if len(log["data"]) != 32 or units == 0:
                return None
            return Transfer(
                tx_hash=_hash(log["transactionHash"]),
                log_index=_natural(log["logIndex"]),
                block_number=_natural(log["blockNumber"]),
                block_hash=_hash(log["blockHash"]),
                address=to_checksum_address("0x" + topics[2][-40:]),
                units=units,
            )

    async def _asked(self, question: Awaitable[T]) -> T:
        try:
            return await question
        except (BlockNotFound, TransactionNotFound):
            raise
        except (Web3Exception, aiohttp.ClientError, OSError, *_MALFORMED) as error:
            raise NodeFailed(self.name, "unavailable", repr(error)) from error


@contextmanager
def _read(node: str) -> Iterator[None]:
    """What cannot be read is a failure of the node."""
    try:
        yield
    except _MALFORMED as error:
        raise NodeFailed(node, "senseless", f"its answer makes no sense: {error!r}") from error


def _natural(said: Any) -> int:
    if not isinstance(said, int) or said < 0:
        raise ValueError(f"{said!r} is no natural number")
    return said


def _hash(said: Any) -> str:
    if len(said) != 32:
        raise ValueError(f"{said!r} is no hash")
    return str(said.to_0x_hex())
