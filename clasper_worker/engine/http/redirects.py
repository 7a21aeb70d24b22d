"""Which redirects are followed: to the same origin, by the same method; all others are errors.

A request of ours carries a token, a key or people's text, and a POST's answer is what it was made
for. So none goes to another origin (scheme, host, port), not even from http to https, and none
becomes a GET. What is not followed is the caller's to report, with `told` for where it leads.
"""

from __future__ import annotations

import ipaddress

import yarl

MAX_REDIRECTS = 3
"""As many are followed for one request; a server that redirects on is not."""

_ANY_METHOD = frozenset({307, 308})
_READING_ALONE = frozenset({301, 302, 303})  # clients turn other methods into a GET
_READING = frozenset({"GET", "HEAD"})
_SHOWN_CHARS = 200


def is_redirect(status: int) -> bool:
    """Whether an answer of this status says to ask elsewhere."""
    return 300 <= status < 400 and status != 304


def followed(method: str, url: yarl.URL, status: int, location: str | None) -> yarl.URL | None:
    """Where the same request may be made again; None where it may not, or need not.

    Args:
        method: the request's.
        url: its address.
        status: of the answer.
        location: the answer's header of this name.
    """
    reading = status in _READING_ALONE and method.upper() in _READING
    if not (status in _ANY_METHOD or reading):
        return None
    target = _target(url, location)
    if target is None or target.raw_user is not None:
        return None
    return target if _origin(target) == _origin(url) else None


def told(method: str, url: str, status: int, location: str | None) -> str:
    """What a redirect that was not followed does, for an error's text: where to, and why not.

    Only the origin and path of the address are shown: a query may hold anything.
    """
    here = yarl.URL(url)
    target = _target(here, location)
    if target is None:
        return f"answers with a redirect (HTTP {status}) that names no usable address"
    shown = f"redirects to {_shown(target)} (HTTP {status})"
    if _origin(target) != _origin(here):
        return f"{shown}, which is another origin and is not followed"
    if followed(method, here, status, location) is None:
        return f"{shown} in a way that a {method} does not survive"
    return f"{shown} again and again"


def is_loopback(host: str | None) -> bool:
    """Whether a host's name or address is this machine's own."""
    if host is None:
        return False
    name = host.rstrip(".").lower()
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False


def _target(url: yarl.URL, location: str | None) -> yarl.URL | None:
    if not location:
        return None
    try:
        target = url.join(yarl.URL(location, encoded=True))
        _ = target.origin(), target.raw_user  # what is wrong with a host or port raises here
    except (ValueError, TypeError):
        return None
    return target if target.scheme in {"http", "https"} else None


def _origin(url: yarl.URL) -> tuple[str, str, int | None]:
    return url.scheme.lower(), (url.raw_host or "").lower().rstrip("."), url.port


def _shown(target: yarl.URL) -> str:
    text = f"{target.origin()}{target.raw_path}"
    printable = text.encode("ascii", "replace").decode()
    return "".join(char if char.isprintable() else "?" for char in printable)[:_SHOWN_CHARS]
