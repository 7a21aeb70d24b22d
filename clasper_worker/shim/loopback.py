"""A shim without a key serves this machine alone, web pages of others excluded.

A page that a browser here has open may have its own host's name resolve to the loopback address
(DNS rebinding), and then reads and sends what it likes. Its requests name that host, though. A page
may also send a plain request without reading the answer; that one names its origin.
"""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_ERROR = (
    "A shim without a key serves this machine alone: call it as localhost or 127.0.0.1, or set"
    " AGENT_DAEMON_API_KEY to serve others"
)


class LoopbackOnly:
    """ASGI middleware that refuses requests whose host or origin is not this machine.

    Args:
        app: the app behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or refuse it."""
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if not is_this_machine(f"//{headers.get('host', '')}") or (
                origin is not None and not is_this_machine(origin)
            ):
                body = {"error": _ERROR, "code": "not_this_machine", "details": {}}
                await JSONResponse(body, status_code=403)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def is_this_machine(url: str) -> bool:
    """Whether a URL, or ``//host:port``, names the loopback interface."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3: never another machine
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
