from __future__ import annotations

import ipaddress

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
        "https://example.com/\r\nX: y",
        "https://example.com/" + "x" * 2048,
        "example.com",
    ],
)
def test_an_address_that_is_no_plain_https_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        check_url(url, "webhook_url")
    assert caught.value.violations[0].field == "webhook_url"


async def test_a_name_that_leads_inside_is_not_connected_to() -> None:
    for host in ("localhost", "127.0.0.1", "::1", "0x7f000001", "127.1"):
        with pytest.raises((FailedPrecondition, httpcore.ConnectError)) as caught:
            await CheckedBackend().connect_tcp(host, 1)
        if isinstance(caught.value, FailedPrecondition):
            assert "127.0.0.1" not in caught.value.message


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
