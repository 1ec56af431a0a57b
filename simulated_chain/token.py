"""The coin: ``contracts/TestUsdc.sol``, compiled once into ``contracts/TestUsdc.json``."""

import time
from importlib import resources

import msgspec

from simulated_chain.rpc import RpcError, ask

DECIMALS = 6
#: For a block with a transaction.
LOOKS, BETWEEN_LOOKS_S = 1_000, 0.01


class Contract(msgspec.Struct, frozen=True):
    """What the compiler made: what is deployed, and by which four bytes a function is called."""

    compiler: str
    source_sha256: str
    bytecode: str
    selectors: dict[str, str]


def contract() -> Contract:
    """The compiled coin."""
    compiled = resources.files("simulated_chain").joinpath("contracts", "TestUsdc.json")
    return msgspec.json.decode(compiled.read_bytes(), type=Contract)


def deploy(url: str) -> str:
    """Put the coin on the chain, once more each time; returns its address, in lower case."""
    sent = {"from": _banker(url), "data": contract().bytecode, "gas": hex(2_000_000)}
    receipt = receipt_of(url, ask(url, "eth_sendTransaction", sent))
    return str(receipt["contractAddress"])


def mint(url: str, token: str, to: str, units: int) -> str:
    """Make so many millionths of the coin, for an address; returns the transaction once it is in a block."""
    call = call_data("mint(address,uint256)", to, units)
    transaction: str = ask(url, "eth_sendTransaction", {"from": _banker(url), "to": token, "data": call})
    if receipt_of(url, transaction)["status"] != "0x1":
        raise RpcError("the coins were not made")
    return transaction


def call_data(signature: str, to: str, units: int) -> str:
    """A call of a function of an address and an amount, as transactions carry it."""
    return f"0x{contract().selectors[signature]}{to[2:].lower():0>64}{units:064x}"


def _banker(url: str) -> str:
    """The first of the accounts that the node signs for."""
    return str(ask(url, "eth_accounts")[0])


def receipt_of(url: str, transaction: str) -> dict[str, str]:
    """Of a transaction, once it is in a block. The node makes one for each, a moment after it answered."""
    for _ in range(LOOKS):
        receipt: dict[str, str] | None = ask(url, "eth_getTransactionReceipt", transaction)
        if receipt is not None:
            return receipt
        time.sleep(BETWEEN_LOOKS_S)
    raise RpcError(f"{transaction} is in no block: the node does not mine by itself")
