"""Which addresses the gateway may be sent to by those who name URLs: none inside its own networks, unless allowed."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import httpcore

from wan22.errors import FailedPrecondition, InvalidRequest

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
MAX_URL = 2048
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""How an IPv6-only network writes the addresses of IPv4 (RFC 6052)."""


def check_url(url: str, field: str) -> str:
    """Returns an https:// URL with a host and without credentials, else raises InvalidRequest."""
    problem = ""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018  # raises for one that is no port
    except ValueError:
        problem = "it is no URL"
    else:
        if parts.scheme != "https" or not parts.hostname:
            problem = "it does not begin with https:// and a host"
        elif not is_name(parts.hostname):
            problem = "its host is no name: each part has 1 to 63 characters"
        elif "@" in parts.netloc:
            problem = "it has credentials, which would be stored and shown"
        elif parts.fragment:
            problem = "it has a fragment, which is not sent"
    if len(url) > MAX_URL:
        problem = f"it has more than {MAX_URL} characters"
    elif not url.isascii() or any(character <= " " or character == "\x7f" for character in url):
        problem = "it has characters that must be escaped"
    if problem:
        text = f"{field} is {url[:200]!r}, but {problem}: use one such as https://example.com/hook."
        raise InvalidRequest(text, field=field)
    return url


def is_name(host: str) -> bool:
    """Whether a host can be looked up at all: it is an address, or a name whose labels are neither empty nor long."""
    try:
        host.encode("idna")  # as socket.getaddrinfo does, which raises what is no OSError
    except UnicodeError:
        return False
    return True


def is_public(address: Address) -> bool:
    """Whether an address is of the public Internet, and so is every IPv4 address that is written into it.

    Private, loopback, link-local (cloud metadata), shared (CGNAT), unique local, multicast and reserved ones are not.
    """
    if isinstance(address, ipaddress.IPv6Address) and address in NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    if isinstance(address, ipaddress.IPv6Address):
        return not address.is_site_local and all(map(is_public, _embedded(address)))
    return True


def _embedded(address: ipaddress.IPv6Address) -> Iterator[ipaddress.IPv4Address]:
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
    if address.sixtofour is not None:
        yield address.sixtofour
    if address.teredo is not None:
        yield from address.teredo


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to the addresses that it has checked: a name is looked up once, so that it cannot change in between.

    Raises FailedPrecondition for a name that leads, also among others, to an address that is neither public nor in one
    of the allowed networks. The text names no address: whoever names the URL need not learn what is inside.
    """

    def __init__(self, allowed: Sequence[Network] = ()) -> None:
        self._allowed = allowed
        self._inner = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Looks up, checks, and connects to the first address that answers."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError("the host's name cannot be looked up") from error
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        for address in addresses:
            if not self.may_be_reached(ipaddress.ip_address(address)):
                raise FailedPrecondition("The host is not a public one, and its network is not allowed.")
        failure: Exception = httpcore.ConnectError("the host has no address")
        for address in addresses:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def may_be_reached(self, address: Address) -> bool:
        """Whether an address is public or allowed."""
        return is_public(address) or any(address in network for network in self._allowed)

    async def sleep(self, seconds: float) -> None:
        """Waits between tries to connect, of which there is one."""
        await asyncio.sleep(seconds)


def parse_networks(text: str) -> tuple[Network, ...]:
    """Networks by commas, such as `10.0.0.0/8,fd00::/8`. Raises ValueError naming the one at fault."""
    return tuple(ipaddress.ip_network(part.strip()) for part in text.split(",") if part.strip())
