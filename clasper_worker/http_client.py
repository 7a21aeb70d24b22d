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
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import aiohttp
import httpx2
import yarl
from multidict import CIMultiDict
from openai import DefaultAioHttpClient

from clasper_worker import __version__

# Idle connections are closed before servers that keep theirs for 5 seconds (uvicorn, Node) close
# them under a request.
_KEEPALIVE_SECONDS = 4.0
_CONNECT_TIMEOUT_SECONDS = 10.0
_CHUNK_BYTES = 65_536

# The most specific first: the first that fits an error says what it becomes.
_TRANSLATIONS: tuple[tuple[type[Exception], type[httpx2.RequestError]], ...] = (
    (aiohttp.SocketTimeoutError, httpx2.ReadTimeout),
    (aiohttp.ConnectionTimeoutError, httpx2.ConnectTimeout),
    (aiohttp.ServerTimeoutError, httpx2.ReadTimeout),
    (TimeoutError, httpx2.ReadTimeout),
    (aiohttp.ClientConnectorError, httpx2.ConnectError),
    (aiohttp.ServerDisconnectedError, httpx2.RemoteProtocolError),
    (aiohttp.ClientConnectionError, httpx2.ReadError),
    (aiohttp.ClientPayloadError, httpx2.ReadError),
    (aiohttp.InvalidURL, httpx2.UnsupportedProtocol),
    (aiohttp.NonHttpUrlClientError, httpx2.UnsupportedProtocol),
    (aiohttp.ClientError, httpx2.RemoteProtocolError),  # a broken status line, for one
    (OSError, httpx2.ReadError),
)


def open_http_client(timeout_seconds: float, base_url: str = "") -> httpx2.AsyncClient:
    """Make the client for one server or provider; nothing is connected to yet.

    The number of connections is not capped: the pool's ``-c`` bounds what a worker does at once,
    and any lower cap would silently undo it. Where the environment names a proxy, it is the
    ``openai`` package's own client on aiohttp, which knows how to use one.

    Args:
        timeout_seconds: how long the server may be silent.
        base_url: what relative addresses are relative to.
    """
    timeout = httpx2.Timeout(timeout_seconds, connect=_CONNECT_TIMEOUT_SECONDS)
    if {"http", "https", "all"} & urllib.request.getproxies().keys():
        limits = httpx2.Limits(max_connections=0, keepalive_expiry=_KEEPALIVE_SECONDS)
        return DefaultAioHttpClient(base_url=base_url, timeout=timeout, limits=limits)
    return LeanClient(base_url=base_url, timeout=timeout)


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole; ``headers`` are looked up in any case of letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


class LeanClient(httpx2.AsyncClient):
    """An `httpx2.AsyncClient` on aiohttp that does only what a plain request needs.

    A request that needs more (a form, a streamed answer, a redirect, authentication by httpx2)
    goes the ordinary way of the class it extends.

    Args:
        base_url: what relative addresses are relative to.
        timeout: for connecting and for the server's silences.
    """

    def __init__(self, *, base_url: str = "", timeout: httpx2.Timeout) -> None:
        self._straight = AiohttpTransport()
        super().__init__(
            base_url=base_url, timeout=timeout, transport=self._straight, follow_redirects=True
        )
        self._usual = tuple(self.headers.raw)
        self._usual_timeout = timeout.as_dict()
        self._fetch_base = base_url.rstrip("/")
        self._fetch_timeout = _aiohttp_timeout(timeout.connect, timeout.read)

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        params: Mapping[str, str | int] | None = None,
        content: bytes | None = None,
    ) -> Answer:
        """Make a request to ``base_url`` and read the answer; redirects are followed.

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
        if not stream and (auth is None or auth is httpx2.USE_CLIENT_DEFAULT):
            response = await self._straight.exchange(request)
            if not response.has_redirect_location:
                return response
        return await super().send(
            request, stream=stream, auth=auth, follow_redirects=follow_redirects
        )


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
def _aiohttp_address(url: httpx2.URL) -> yarl.URL:
    return yarl.URL(str(url), encoded=True)


@lru_cache(maxsize=1024)
def _fetch_address(url: str, query: tuple[tuple[str, str | int], ...] | None) -> yarl.URL:
    try:
        address = yarl.URL(url)
        return address.with_query(query) if query else address
    except ValueError as exc:
        raise httpx2.InvalidURL(type(exc).__name__) from exc


@lru_cache(maxsize=64)
def _aiohttp_timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    # `connect` covers the name's resolution as well, which `sock_connect` does not.
    return aiohttp.ClientTimeout(connect=connect, sock_connect=connect, sock_read=read)


class AiohttpTransport(httpx2.AsyncBaseTransport):
    """Carries httpx2's requests by aiohttp, over any number of connections that are kept alive."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def exchange(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and read the whole answer.

        Raises:
            httpx2.RequestError: no answer came, or not all of it.
        """
        await request.aread()
        try:
            async with self._begin(request) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc, request) from exc
        return httpx2.Response(
            answer.status,
            headers=answer.raw_headers,
            content=body,
            request=request,
            extensions=_extensions(answer),
        )

    async def fetch(
        self,
        method: str,
        url: yarl.URL,
        headers: Mapping[str, str],
        content: bytes | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own, by phases
    ) -> Answer:
        """Send a request and read the whole answer, decompressed.

        Raises:
            httpx2.RequestError: no answer came, or not all of it.
        """
        try:
            async with self._open_session().request(
                method, url, headers=headers, data=content, timeout=timeout, auto_decompress=True
            ) as answer:
                return Answer(answer.status, answer.headers, await answer.read())
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc, None) from exc

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request and begin to read the answer; see `httpx2.AsyncBaseTransport`.

        Raises:
            httpx2.RequestError: no answer came.
        """
        await request.aread()
        try:
            answer = await self._begin(request)
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc, request) from exc
        return httpx2.Response(
            answer.status,
            headers=answer.raw_headers,
            stream=_Body(answer, request),
            request=request,
            extensions=_extensions(answer),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    keepalive_timeout=_KEEPALIVE_SECONDS,
                    ssl=httpx2.create_ssl_context(),
                ),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # httpx2 does
                skip_auto_headers=["Content-Type"],  # what a body is, is the caller's to say
                headers={"User-Agent": f"clasper-worker/{__version__}"},
            )
        return self._session

    def _begin(self, request: httpx2.Request) -> Any:
        seconds = request.extensions.get("timeout") or {}
        encoding = request.headers.encoding
        return self._open_session().request(
            request.method,
            _aiohttp_address(request.url),
            headers=CIMultiDict(
                (name.decode(encoding), value.decode(encoding))
                for name, value in request.headers.raw
            ),
            data=request.content or None,
            allow_redirects=False,
            timeout=_aiohttp_timeout(seconds.get("connect"), seconds.get("read")),
        )


class _Body(httpx2.AsyncByteStream):
    """An answer's body as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for chunk in self._answer.content.iter_chunked(_CHUNK_BYTES):
                yield chunk
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc, self._request) from exc

    async def aclose(self) -> None:
        # Closes the connection unless the body was read to its end.
        self._answer.release()
        await self._answer.wait_for_close()


def _extensions(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    reason = answer.reason
    return {"reason_phrase": reason.encode("ascii", "ignore")} if reason else {}


def _translated(exc: Exception, request: httpx2.Request | None) -> httpx2.RequestError:
    """The error by httpx2's names; without aiohttp's text, which quotes addresses."""
    kind = next(theirs for ours, theirs in _TRANSLATIONS if isinstance(exc, ours))
    return kind(type(exc).__name__, request=request)
