"""Where a webhook goes: its address, taken apart once and refused if it could mean two things."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9a-fA-F]*")
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
_MAX_HOST_CHARS = 253


@dataclass(frozen=True, slots=True)
class Target:
    """A webhook's address in parts; what is checked and what is connected to are these.

    Attributes:
        scheme: ``http`` or ``https``.
        host: a name in ASCII and lower case, or an IP address in its usual form.
        port: 1 to 65535.
        path: path and query, as sent. May hold secrets, so it is not shown.
    """

    scheme: str
    host: str
    port: int
    path: str = field(repr=False)

    @property
    def host_header(self) -> str:
        """The value of ``Host`` (RFC 9110, 7.2): without the port where it is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_target(url: str) -> Target:
    """Take a webhook's URL apart.

    Raises:
        ValueError: it cannot be used; says why, without repeating it.
    """
    # Loaded when there is a webhook: a program that only enqueues turns needs no HTTP client.
    import httpx2  # noqa: PLC0415

    if not url.isprintable() or " " in url or "\\" in url:
        raise ValueError("must not contain spaces, backslashes or control characters")
    try:
        parsed = httpx2.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx2.InvalidURL, ValueError):
        raise ValueError("is not a valid address") from None
    if parsed.scheme not in _DEFAULT_PORTS:
        raise ValueError("must start with http:// or https://")
    if parsed.userinfo:
        raise ValueError("must not contain a user or password: send them as a header")
    port = _DEFAULT_PORTS[parsed.scheme] if parsed.port is None else parsed.port
    if not 1 <= port <= 65_535:
        raise ValueError("has a port that does not exist")
    return Target(parsed.scheme, _checked_host(host), port, parsed.raw_path.decode("ascii"))


def address_without_dns(host: str) -> str | None:
    """The address that a target's host surely stands for; None where only its name server knows."""
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761, 6.3
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return None


def _checked_host(host: str) -> str:
    if ":" in host:
        if "%" in host:
            raise ValueError("must not contain an IPv6 zone")
        try:
            return str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError("has an IPv6 address that is none") from None
    # A host that ends in a number is an IPv4 address to every browser and C library, in any of
    # many spellings (127.1, 0x7f000001, 017700000001): only the usual one is taken.
    if _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("has an IPv4 address that is not four decimal numbers") from None
    if len(host) > _MAX_HOST_CHARS or not _HOST_NAME.fullmatch(host):
        raise ValueError("has a host that is not a name or an IP address")
    return host


_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")  # RFC 9110, 5.6.2: a token
_VALUE = re.compile(r"[!-~]([ \t!-~]*[!-~])?|")  # RFC 9110, 5.5, in ASCII
_MAX_HEADERS = 32
_MAX_CHARS = 8192
# What frames the message, says where it goes, or is ours to say.
_RESERVED = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED_PREFIXES = ("x-clasper-", "proxy-")


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that the headers can be sent, and change nothing but what the receiver makes of them.

    Raises:
        ValueError: names the first that is not so; never its value, which may be a secret.
    """
    if len(headers) > _MAX_HEADERS:
        raise ValueError(f"are more than {_MAX_HEADERS}")
    if sum(len(name) + len(value) for name, value in headers.items()) > _MAX_CHARS:
        raise ValueError(f"have more than {_MAX_CHARS:,} characters in all")
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError("have a name that is not one of HTTP")
        if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
            raise ValueError(f"must not set {name}, which the worker sets or HTTP needs")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"have a value of {name} that is not one line of ASCII")
