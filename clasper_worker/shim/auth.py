"""Who may call the shim: whoever has the daemon key (contract Part 2, "HTTP shim")."""

from __future__ import annotations

import hmac
import ipaddress

from fastapi import Request
from fastapi.security import APIKeyHeader

from clasper_worker.errors import ConfigurationError
from clasper_worker.settings import Settings
from clasper_worker.shim.problems import ApiProblem

_HEADERS = ("X-Agent-Daemon-Key", "X-Daemon-Key")
DESCRIBED_KEY = APIKeyHeader(name=_HEADERS[0], scheme_name="DaemonKey", auto_error=False)
"""A dependency that checks nothing: it has the OpenAPI name the header."""


class DaemonKey:
    """A FastAPI dependency that lets a request through only with an accepted key.

    With no key configured every request passes: `refuse_open_door` sees to it that this is so on
    loopback only.
    """

    def __init__(self, accepted: tuple[str, ...]) -> None:
        self._accepted = tuple(key.encode() for key in accepted)

    def __call__(self, request: Request) -> None:
        """Check one request.

        Raises:
            ApiProblem: 401, the key is missing or wrong.
        """
        if not self._accepted:
            return
        for header in _HEADERS:
            given = request.headers.get(header)
            if given and self._accepts(given.encode()):
                return
        raise ApiProblem(
            401,
            "unauthorized",
            "Send the daemon key in X-Agent-Daemon-Key; it is one of AGENT_DAEMON_API_KEY",
        )

    def _accepts(self, given: bytes) -> bool:
        # Every key is compared, each in constant time, so that timing tells nothing.
        return sum(hmac.compare_digest(given, key) for key in self._accepted) > 0


def refuse_open_door(settings: Settings) -> None:
    """Allow to go without a key only where nobody else can call.

    Raises:
        ConfigurationError: bound beyond loopback without AGENT_DAEMON_API_KEY.
    """
    if settings.daemon_api_keys or is_loopback(settings.clasper_host):
        return
    raise ConfigurationError(
        f"The shim is bound to {settings.clasper_host} without a key: set AGENT_DAEMON_API_KEY,"
        " or CLASPER_HOST=127.0.0.1",
        {"variable": "AGENT_DAEMON_API_KEY"},
    )


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
