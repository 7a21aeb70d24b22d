"""Which IP addresses are public: those that a webhook may go to without further permission."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from clasper_worker.errors import WebhookRefusedError

_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

# IANA's registries of special-purpose addresses, without what `is_global` of every supported
# Python knows to be special, or where it differs between them.
_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8",  # this network
        "100.64.0.0/10",  # carrier-grade NAT
        "192.0.0.0/24",  # protocol assignments
        "192.88.99.0/24",  # 6to4 relays
        "198.18.0.0/15",  # benchmarks
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and broadcast
    )
)
_GLOBAL_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")  # all else is special or not assigned
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23",  # protocol assignments, Teredo among them
        "2001:db8::/32",  # documentation
        "3fff::/20",  # documentation
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def is_public_address(address: str) -> bool:
    """Whether an address is on the public internet, and so nobody's inside.

    An IPv6 address that stands for an IPv4 one (mapped, 6to4, NAT64) is what that one is. What
    is no address at all is not public.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    embedded = _embedded(parsed)
    return _is_public(parsed if embedded is None else embedded)


def _embedded(address: _Address) -> ipaddress.IPv4Address | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour


def _is_public(address: _Address) -> bool:
    if not address.is_global or address.is_multicast:
        return False
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in _SPECIAL_V4)
    return address in _GLOBAL_UNICAST_V6 and not any(address in network for network in _SPECIAL_V6)


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """Where webhooks may go.

    Attributes:
        allow_private: everywhere.
        allowed_hosts: names and addresses, in lower case, that may be private.
        is_public: tells public addresses from others.
    """

    allow_private: bool = False
    allowed_hosts: frozenset[str] = frozenset()
    is_public: Callable[[str], bool] = is_public_address

    def check(self, host: str, addresses: Sequence[str]) -> None:
        """Check all addresses of a host: one that is not public spoils the rest.

        Raises:
            WebhookRefusedError: a webhook may not go there.
        """
        if self.allow_private or host.lower() in self.allowed_hosts:
            return
        if not all(self.is_public(address) for address in addresses):
            # Which address it is stays unsaid: the caller is not to learn our inner names.
            raise WebhookRefusedError(
                f"The webhook's host {host} has an address that is not public: set"
                " CLASPER_WEBHOOK_ALLOWED_HOSTS to the hosts of your own network that may get"
                " webhooks, or CLASPER_WEBHOOK_ALLOW_PRIVATE",
                {"host": host},
            )
