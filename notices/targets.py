"""Where notices may be sent: to the public internet only, so that nobody has us ask inside our own network.

The addresses of a host are looked at when its URL is given, and again when a socket is made to connect to one of them:
what a name means can change in between, and the address that was looked at is the one that is connected to.
"""

import asyncio
import ipaddress
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeAlias

from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from notices.errors import TargetRefused

#: A name that takes longer to resolve is no host that anything can be delivered to.
RESOLVE_WITHIN_S = 5.0
#: A name that nobody answers for keeps its thread for half a minute: what else the process has to resolve, such as the
#: host of Postgres, is resolved in others.
_THREADS = ThreadPoolExecutor(max_workers=32, thread_name_prefix="targets")

#: All that IANA has given to the public internet. Outside of it a network may use for itself what nobody has, or nobody
#: any more, such as site-local addresses (fec0::/10).
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
#: IPv6 addresses that carry an IPv4 address, which a gateway on the way would connect to (RFC 6052).
_TRANSLATED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("64:ff9b:1::/48"))

AddressInfo: TypeAlias = tuple[
    int | socket.AddressFamily, int | socket.SocketKind, int, str, tuple[str, int] | tuple[str, int, int, int]
]


class NotPublic(OSError):
    """The address that was about to be connected to is not of the public internet."""

    def __init__(self) -> None:
        super().__init__("the URL's host is not on the public internet")


class Targets:
    """What may be sent to. ``allow_http``: without TLS too. ``allow_private``: addresses of any network, for tests."""

    def __init__(self, *, allow_http: bool, allow_private: bool) -> None:
        self._schemes = ("https", "http") if allow_http else ("https",)
        self._allow_private = allow_private

    def parsed(self, text: str) -> URL:
        """The URL as text of a kind that may be sent to, wherever its host is. Raises TargetRefused."""
        try:
            url = URL(text)
            port = url.port
        except ValueError as error:
            raise TargetRefused("this is not a URL") from error
        if url.scheme not in self._schemes or not url.host or not port:
            raise TargetRefused(f"this is not a URL that begins with {' or '.join(self._schemes)}:// and a host")
        if url.user is not None or url.password is not None or url.fragment:
            raise TargetRefused("a URL for notices has neither a user, a password nor a fragment")
        return url

    async def check(self, text: str) -> None:
        """Raises TargetRefused when nothing would be sent to this URL, as its host resolves now."""
        url = self.parsed(text)
        if self._allow_private:
            return
        try:
            async with asyncio.timeout(RESOLVE_WITHIN_S):
                found = await _addresses(url.raw_host or "", url.port or 0)
        except (OSError, UnicodeError) as error:  # TimeoutError is one
            raise TargetRefused("the URL's host cannot be resolved") from error
        if not all(is_public(address["host"]) for address in found):
            raise TargetRefused(str(NotPublic()))

    def socket(self, address_info: AddressInfo) -> socket.socket:
        """A socket to connect to this address with. Raises NotPublic when it may not be."""
        family, kind, protocol, _, address = address_info
        if not self._allow_private and not is_public(address[0]):
            raise NotPublic
        return socket.socket(family, kind, protocol)


class TargetResolver(AbstractResolver):
    """What a client that sends to targets resolves their names with."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        return await _addresses(host, port, family, socket.AI_ADDRCONFIG)

    async def close(self) -> None:
        """There is nothing to close."""


async def _addresses(
    host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC, flags: int = 0
) -> list[ResolveResult]:
    resolve = partial(socket.getaddrinfo, host, port, family, socket.SOCK_STREAM, socket.IPPROTO_TCP, flags)
    found = await asyncio.get_running_loop().run_in_executor(_THREADS, resolve)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=port,
            family=family,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for family, _, protocol, _, address in found
    ]


def is_public(address: str) -> bool:
    """Whether everybody means the same host by this address, and nobody a network of their own."""
    ip = ipaddress.ip_address(address.partition("%")[0])  # without the zone of a link-local one
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is not None:
            return is_public(str(inner))
        if any(ip in network for network in _TRANSLATED):
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST:
            return False
    return ip.is_global and not ip.is_multicast
