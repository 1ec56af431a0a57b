"""The coin of the tests, as it is checked in."""

import hashlib
from importlib import resources

from simulated_chain.token import call_data, contract


def test_the_coin_was_compiled_from_the_source_beside_it() -> None:
    """After a change of the source: ``make compile-token``."""
    source = resources.files("simulated_chain").joinpath("contracts", "TestUsdc.sol").read_bytes()

    assert contract().source_sha256 == hashlib.sha256(source).hexdigest()
    assert contract().compiler.startswith("0.8.30+")


def test_a_call_is_written_as_the_standard_says() -> None:
    call = call_data("transfer(address,uint256)", "0x" + "Ab" * 20, 258)

    assert call == "0xa9059cbb" + "0" * 24 + "ab" * 20 + f"{258:064x}"
