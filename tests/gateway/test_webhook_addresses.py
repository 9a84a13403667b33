from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wan22.errors import FailedPrecondition, InvalidRequest
from wan22_gateway.webhooks.addresses import CheckedBackend, check_url, is_public, parse_networks

INSIDE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",  # metadata of clouds
    "100.64.0.1",  # carrier-grade NAT
    "0.0.0.0",  # noqa: S104
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.0.2.1",
    "::1",
    "::",
    "fe80::1",
    "fd00:ec2::254",
    "fc00::1",
    "fec0::1",
    "ff02::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:127.0.0.1",
    "::127.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::a9fe:a9fe",
    "2002:7f00:1::",  # 6to4 of 127.0.0.1
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
]


@pytest.mark.parametrize("address", INSIDE)
def test_what_is_inside_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::8.8.8.8"])
def test_what_is_outside_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.ip_addresses(v=4))
def test_no_address_becomes_public_by_being_written_as_another_kind(address: ipaddress.IPv4Address) -> None:
    if is_public(address):
        return
    for prefix in ("::ffff:0:0", "64:ff9b::", "::"):
        assert not is_public(ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address)))
    sixtofour = (0x2002 << 112) | (int(address) << 80)
    assert not is_public(ipaddress.IPv6Address(sixtofour))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://",
        "ftp://example.com",
        "https://user:secret@example.com/",
        "https://example.com/#fragment",
        "https://example.com/a b",
        "https://example.com:99999/",
        "https://[::1/",
        "https://a..b/",
        "https://.example.com/",
        f"https://{64 * 'a'}.com/",
        "https://example.com/\r\nX: y",
        "https://example.com/" + "x" * 2048,
        "example.com",
    ],
)
def test_an_address_that_is_no_plain_https_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, "webhook_url")
    assert caught.value.violations[0].field == "webhook_url"


@given(st.text(st.sampled_from("aé.-_[]:%0"), max_size=8), st.integers(0, 70))
def test_the_host_of_a_url_that_is_taken_can_be_looked_up(start: str, length: int) -> None:
    try:
        url = check_url(f"https://{start}{length * 'a'}.test/", "webhook_url")
    except InvalidRequest:
        return
    (urlsplit(url).hostname or "").encode("idna")  # which getaddrinfo does


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "::1", "::ffff:127.0.0.1", "0x7f000001", "127.1", "0"])
async def test_a_name_that_leads_inside_is_not_connected_to(host: str) -> None:
    with pytest.raises(FailedPrecondition, match=r"^The host is not a public one, and its network is not allowed\.$"):
        await CheckedBackend().connect_tcp(host, 1)


@pytest.mark.parametrize("host", ["a..b", 64 * "a", "nowhere.invalid"])
async def test_a_name_that_leads_nowhere_is_no_fault_of_the_gateways(host: str) -> None:
    with pytest.raises(httpcore.ConnectError, match="cannot be looked up"):
        await CheckedBackend().connect_tcp(host, 1)


class Names:
    """A name service whose one name leads elsewhere at each look-up, as somebody's who rebinds it does."""

    def __init__(self, *answers: list[str]) -> None:
        self.asked: list[str] = []
        self._answers = list(answers)

    def look_up(self, host: Any, port: Any, *_: Any, **__: Any) -> list[Any]:
        if host != "rebound.test":  # an address that was checked, which is looked up by nobody
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            return [(family, socket.SOCK_STREAM, 6, "", (host, port))]
        self.asked.append(host)
        addresses = self._answers.pop(0)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]


async def test_a_name_that_changes_between_check_and_connect_leads_where_it_was_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    came = asyncio.Event()

    async def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        writer.close()

    names = Names(["127.0.0.1"], ["10.0.0.1"])
    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setattr(socket, "getaddrinfo", names.look_up)
        backend = CheckedBackend(parse_networks("127.0.0.0/8"))
        stream = await backend.connect_tcp("rebound.test", port, 10.0)
        await asyncio.wait_for(came.wait(), 10)
        await stream.aclose()
        assert names.asked == ["rebound.test"]
        with pytest.raises(FailedPrecondition):  # the next connection checks anew
            await backend.connect_tcp("rebound.test", port, 10.0)


async def test_a_name_that_leads_outside_and_inside_is_not_connected_to_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", Names(["8.8.8.8", "127.0.0.1"]).look_up)
    with pytest.raises(FailedPrecondition, match="not a public one"):
        await CheckedBackend().connect_tcp("rebound.test", 1)


async def test_an_allowed_network_may_be_reached_and_no_other() -> None:
    backend = CheckedBackend(parse_networks("127.0.0.0/8, fd00::/8"))
    assert backend.may_be_reached(ipaddress.ip_address("127.9.9.9"))
    assert backend.may_be_reached(ipaddress.ip_address("fd12::1"))
    assert not backend.may_be_reached(ipaddress.ip_address("10.0.0.1"))
    with pytest.raises(httpcore.ConnectError):  # nobody listens there
        await backend.connect_tcp("127.0.0.1", 1, 5.0)


def test_a_network_that_is_none_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        parse_networks("10.0.0.1/8")
