"""Who may call the shim: whoever has the daemon key (contract Part 2, "HTTP shim")."""

from __future__ import annotations

import base64
import hmac

from fastapi import Request

from clasper_worker.config.groups import ShimGroup
from clasper_worker.engine.http.listening import is_loopback
from clasper_worker.errors import ConfigurationError
from clasper_worker.shim.http import ApiProblem

_HEADERS = ("X-Agent-Daemon-Key", "X-Daemon-Key")
KEY_SECURITY: list[dict[str, list[str]]] = [{"DaemonKey": []}, {"ShortDaemonKey": []}]
"""How the OpenAPI document says that a route wants the key, in either header."""


class DaemonKey:
    """A FastAPI dependency that lets a request through only with an accepted key.

    With no key configured every request passes: `refuse_open_door` sees to it that this is so on
    loopback only.

    Args:
        accepted: the keys.
        as_password: whether the key may also come as the password of HTTP Basic, of whatever user:
            so that a browser can ask a person for it. For what changes nothing.
    """

    def __init__(self, accepted: tuple[str, ...], *, as_password: bool = False) -> None:
        self._accepted = tuple(key.encode() for key in accepted)
        self._as_password = as_password

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
        if self._as_password and self._accepts(_password(request)):
            return
        challenge = 'Basic realm="Clasper Worker: the daemon key is the password"'
        raise ApiProblem(
            401,
            "unauthorized",
            "Send the daemon key in X-Agent-Daemon-Key; it is one of AGENT_DAEMON_API_KEY",
            headers={"WWW-Authenticate": challenge} if self._as_password else None,
        )

    def _accepts(self, given: bytes) -> bool:
        # Every key is compared, each in constant time, so that timing tells nothing.
        return sum(hmac.compare_digest(given, key) for key in self._accepted) > 0


def _password(request: Request) -> bytes:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return b""
    try:
        return base64.b64decode(given, validate=True).partition(b":")[2]
    except ValueError:
        return b""


def refuse_open_door(settings: ShimGroup) -> None:
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
