"""The HTTP client of turns: httpx2's interface straight on aiohttp.

A turn is little else than three small HTTP requests, and most of what a request costs in CPU is
what a general client does around it: parsing the address again, layers for authentication,
redirects and cookies, a body that arrives through five generators. `LeanClient` is an
`httpx2.AsyncClient` that leaves these out where a request does not need them, so that whatever
takes such a client (the ``openai`` package) gains, and its `LeanClient.fetch` makes a request with
none of httpx2's objects at all, for our own calls.

Cookies are neither kept nor sent: one client serves many tenants.
"""

from __future__ import annotations

import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
import yarl
from openai import DefaultAioHttpClient

from clasper_worker.engine.http.redirects import MAX_REDIRECTS, followed, is_loopback
from clasper_worker.engine.http.transport import (
    KEEPALIVE_SECONDS,
    AiohttpTransport,
    Answer,
    aiohttp_timeout,
)

_CONNECT_TIMEOUT_SECONDS = 10.0


def open_http_client(
    timeout_seconds: float, base_url: str = "", *, server: str | None = None
) -> httpx2.AsyncClient:
    """Make the client for one server or provider; nothing is connected to yet.

    The number of connections is not capped: the pool's ``-c`` bounds what a worker does at once,
    and any lower cap would silently undo it. Where the environment names a proxy, it is the
    ``openai`` package's own client on aiohttp, which knows how to use one; a server of this
    machine is never asked through one, which would see our tokens and cannot reach it anyway.

    Args:
        timeout_seconds: how long the server may be silent.
        base_url: what relative addresses are relative to.
        server: an address of the server, where that is not ``base_url``.
    """
    timeout = httpx2.Timeout(timeout_seconds, connect=_CONNECT_TIMEOUT_SECONDS)
    has_proxy = bool({"http", "https", "all"} & urllib.request.getproxies().keys())
    if has_proxy and not is_loopback(urlsplit(server or base_url).hostname):
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=KEEPALIVE_SECONDS)
        return _ProxiedClient(base_url=base_url, timeout=timeout, limits=limits)
    return LeanClient(base_url=base_url, timeout=timeout)


class _ProxiedClient(DefaultAioHttpClient):
    """The ``openai`` package's client, with our rule for redirects."""

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send a request; see `httpx2.AsyncClient.send`."""
        del follow_redirects  # ours to say

        def once(request: httpx2.Request) -> Awaitable[httpx2.Response]:
            return super(_ProxiedClient, self).send(
                request, stream=stream, auth=auth, follow_redirects=False
            )

        return await _within_the_origin(once, request, await once(request))


async def _within_the_origin(
    send: Callable[[httpx2.Request], Awaitable[httpx2.Response]],
    request: httpx2.Request,
    response: httpx2.Response,
) -> httpx2.Response:
    """Send a request again to where its own origin has redirected it, and so on."""
    left = MAX_REDIRECTS
    while True:
        target = followed(
            request.method,
            yarl.URL(str(request.url), encoded=True),
            response.status_code,
            response.headers.get("location"),
        )
        if target is None or not left:
            return response
        await response.aclose()
        left -= 1
        request = httpx2.Request(
            request.method,
            str(target),
            headers=request.headers,
            content=await request.aread(),
            extensions=request.extensions,
        )
        response = await send(request)


class LeanClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` on aiohttp that does only what a plain request needs.

    A request that needs more (a form, authentication by httpx2) goes the ordinary way of the class
    it extends. Redirects are followed within the origin alone: see
    `clasper_worker.engine.http.redirects`.

    Args:
        base_url: what relative addresses are relative to.
        timeout: for connecting and for the server's silences.
    """

    def __init__(self, *, base_url: str = "", timeout: httpx2.Timeout) -> None:
        self._straight = AiohttpTransport()
        super().__init__(
            base_url=base_url, timeout=timeout, transport=self._straight, follow_redirects=False
        )
        self._usual = tuple(self.headers.raw)
        self._usual_timeout = timeout.as_dict()
        self._fetch_base = base_url.rstrip("/")
        self._fetch_timeout = aiohttp_timeout(timeout.connect, timeout.read)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Make a request to ``base_url`` and read the answer.

        Raises:
            httpx2.RequestError: no answer came, or not all of it.
            httpx2.InvalidURL: the address is none.
        """
        url = _fetch_address(self._fetch_base + path, tuple(params.items()) if params else None)
        return await self._straight.fetch(method, url, headers, content, self._fetch_timeout)

    def build_request(  # noqa: PLR0913 - httpx2's signature
        self,
        method: str,
        url: httpx2.URL | str,
        *,
        content: Any = None,
        data: Any = None,
        files: Any = None,
        json: Any = None,
        params: Any = None,
        headers: Any = None,
        cookies: Any = None,
        timeout: Any = httpx2.USE_CLIENT_DEFAULT,
        extensions: Any = None,
    ) -> httpx2.Request:
        """Make a request; see `httpx2.AsyncClient.build_request`."""
        rest = (data, files, json, cookies, extensions)
        if not isinstance(url, str) or any(item is not None for item in rest):
            return super().build_request(
                method,
                url,
                content=content,
                data=data,
                files=files,
                json=json,
                params=params,
                headers=headers,
                cookies=cookies,
                timeout=timeout,
                extensions=extensions,
            )
        if isinstance(timeout, httpx2.Timeout):
            seconds = timeout.as_dict()
        elif timeout is httpx2.USE_CLIENT_DEFAULT:
            seconds = self._usual_timeout
        else:
            seconds = httpx2.Timeout(timeout).as_dict()
        query = tuple(params.items()) if isinstance(params, Mapping) else params
        return httpx2.Request(
            method,
            _address(str(self.base_url) if url.startswith("/") else "", url, query or None),
            headers=_merged(self._usual, headers),
            content=content,
            extensions={"timeout": seconds},
        )

    async def send(
        self,
        request: httpx2.Request,
        *,
        stream: bool = False,
        auth: Any = httpx2.USE_CLIENT_DEFAULT,
        follow_redirects: Any = httpx2.USE_CLIENT_DEFAULT,
    ) -> httpx2.Response:
        """Send a request; see `httpx2.AsyncClient.send`."""
        del follow_redirects  # ours to say
        is_plain = auth is None or auth is httpx2.USE_CLIENT_DEFAULT

        def once(request: httpx2.Request) -> Awaitable[httpx2.Response]:
            if is_plain:
                straight = self._straight
                return (straight.handle_async_request if stream else straight.exchange)(request)
            return super(LeanClient, self).send(
                request, stream=stream, auth=auth, follow_redirects=False
            )

        response = await once(request)
        if not response.has_redirect_location:
            return response
        return await _within_the_origin(once, request, response)


def _merged(
    usual: Sequence[tuple[bytes, bytes]],
    given: Mapping[str, str] | Sequence[tuple[str, str]] | None,
) -> Sequence[tuple[bytes, bytes]]:
    """The client's headers and the request's, which win."""
    if not given:
        return usual
    pairs = given.items() if isinstance(given, Mapping) else given
    own = [(name.encode("ascii"), value.encode()) for name, value in pairs]
    names = {name.lower() for name, _ in own}
    return [pair for pair in usual if pair[0].lower() not in names] + own


@lru_cache(maxsize=1024)
def _address(base: str, url: str, query: tuple[tuple[str, str | int], ...] | None) -> httpx2.URL:
    """The address, parsed once: a worker asks for few different ones, again and again."""
    whole = httpx2.URL(base.rstrip("/") + url)
    return whole.copy_merge_params(dict(query)) if query else whole


@lru_cache(maxsize=1024)
def _fetch_address(url: str, query: tuple[tuple[str, str | int], ...] | None) -> yarl.URL:
    try:
        address = yarl.URL(url)
        return address.with_query(query) if query else address
    except ValueError as exc:
        raise httpx2.InvalidURL(type(exc).__name__) from exc
