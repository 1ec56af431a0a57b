"""Which addresses notices are never sent to."""

import asyncio
import ipaddress
import socket
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notices.targets import NotPublic, Targets, is_public

PRIVATE = [
    ipaddress.ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.2.0/24", "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
STRICT = Targets(allow_http=False, allow_private=False)

inside = st.sampled_from(PRIVATE).flatmap(
    lambda network: st.integers(int(network.network_address), int(network.broadcast_address)).map(ipaddress.IPv4Address)
)


@given(address=inside)
def test_no_address_of_a_private_network_is_public_in_whatever_it_is_wrapped(address: ipaddress.IPv4Address) -> None:
    number = int(address)

    assert not is_public(str(address))
    for wrapped in (
        number,  # compatible
        0xFFFF << 32 | number,  # mapped
        0xFFFF << 48 | number,  # translated
        0x0064FF9B << 96 | number,  # NAT64
        0x2002 << 112 | number << 80,  # 6to4
        0x20010000 << 96 | number ^ 0xFFFFFFFF,  # Teredo
    ):
        assert not is_public(str(ipaddress.IPv6Address(wrapped)))


@pytest.mark.parametrize(
    "address",
    ["::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fd12:3456::1", "fec0::1", "ff02::1", "2001:db8::1", "4000::1"],
)
def test_no_address_of_ones_own_is_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::1.1.1.1"]
)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(address)
    STRICT.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443))).close()


def test_no_socket_is_made_for_an_address_that_is_not() -> None:
    with pytest.raises(NotPublic):
        STRICT.socket((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443)))


async def test_names_that_nobody_answers_for_keep_no_other_name_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    let_on, resolve = threading.Event(), socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **options: Any) -> Any:
        if host == "hangs.example":
            let_on.wait()
        return resolve("127.0.0.1", *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    hanging = [asyncio.create_task(STRICT.check("https://hangs.example/")) for _ in range(40)]
    try:
        await asyncio.sleep(0)  # they have begun
        async with asyncio.timeout(3):
            found = await asyncio.get_running_loop().getaddrinfo("postgres.example", 5432)
    finally:
        let_on.set()
        await asyncio.gather(*hanging, return_exceptions=True)

    assert found
