"""Which addresses are public."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.engine.http.public_addresses import AddressPolicy, is_public_address
from clasper_worker.errors import WebhookRefusedError

PRIVATE_V4 = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.8",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "198.51.100.1",
    "203.0.113.1",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
]
PUBLIC_V4 = ["1.1.1.1", "8.8.8.8", "100.63.0.1", "100.128.0.1", "172.32.0.1", "192.167.0.1"]


@pytest.mark.parametrize("address", PRIVATE_V4)
def test_special_ipv4_addresses_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", PUBLIC_V4)
def test_other_ipv4_addresses_are(address: str) -> None:
    assert is_public_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "::",
        "::1",
        "::7f00:1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:0:7f00:1::",
        "2001:20::1",
        "2001:db8::1",
        "3fff::1",
        "4000::1",
        "fc00::1",
        "fd12:3456::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_special_ipv6_addresses_are_not_public(address: str) -> None:
    assert not is_public_address(address)


@pytest.mark.parametrize("address", ["2606:4700:4700::1111", "2a00:1450:4001::8a"])
def test_other_ipv6_addresses_are(address: str) -> None:
    assert is_public_address(address)


def stand_ins(address: str) -> list[str]:
    number = int(ipaddress.IPv4Address(address))
    return [
        str(ipaddress.IPv6Address(0xFFFF << 32 | number)),  # mapped
        str(ipaddress.IPv6Address(0x2002 << 112 | number << 80)),  # 6to4
        str(ipaddress.IPv6Address(0x64FF9B << 96 | number)),  # NAT64
    ]


@given(st.sampled_from(PRIVATE_V4 + PUBLIC_V4) | st.ip_addresses(v=4).map(str))
def test_an_ipv6_address_that_stands_for_an_ipv4_one_is_what_that_one_is(address: str) -> None:
    expected = is_public_address(address)
    assert [is_public_address(stand_in) for stand_in in stand_ins(address)] == [expected] * 3


@given(st.ip_addresses())
def test_nothing_is_public_that_python_calls_private_or_special(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    special = (
        address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )
    if special and not getattr(address, "sixtofour", None):
        assert not is_public_address(str(address))


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "1.2.3.4:80", "[::1]"])
def test_what_is_no_address_is_not_public(text: str) -> None:
    assert not is_public_address(text)


def test_one_address_that_is_not_public_spoils_the_rest() -> None:
    policy = AddressPolicy()
    policy.check("example.com", ["8.8.8.8", "2606:4700::1"])
    with pytest.raises(WebhookRefusedError) as caught:
        policy.check("example.com", ["8.8.8.8", "10.1.2.3"])
    assert "CLASPER_WEBHOOK_ALLOWED_HOSTS" in str(caught.value)
    assert "10.1.2.3" not in f"{caught.value} {caught.value.details}"


def test_an_allowed_host_may_be_private_and_another_may_not() -> None:
    policy = AddressPolicy(allowed_hosts=frozenset({"backend", "10.0.0.1"}))
    policy.check("Backend", ["10.0.0.2"])
    policy.check("10.0.0.1", ["10.0.0.1"])
    for host in ("backend.example.com", "10.0.0.2"):
        with pytest.raises(WebhookRefusedError):
            policy.check(host, ["10.0.0.2"])


def test_private_addresses_may_be_allowed_altogether() -> None:
    AddressPolicy(allow_private=True).check("localhost", ["127.0.0.1", "::1"])
