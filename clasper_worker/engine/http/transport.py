"""httpx2's requests carried by aiohttp, and requests without any of httpx2's objects."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import aiohttp
import httpx2
import yarl
from aiohttp.http_exceptions import ContentEncodingError
from multidict import CIMultiDict

from clasper_worker import __version__
from clasper_worker.engine.http.redirects import MAX_REDIRECTS, followed

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Of one answer to our own calls, decompressed: more would hold the event loop while it is read."""

# Idle connections are closed before servers that keep theirs for 5 seconds (uvicorn, Node) close
# them under a request.
KEEPALIVE_SECONDS = 4.0

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


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer, read whole; ``headers`` are looked up in any case of letters.

    ``url`` is the address that gave it.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    url: str = field(default="", repr=False)


class AnswerTooLargeError(httpx2.RequestError):
    """The answer has more than `MAX_ANSWER_BYTES`."""


@lru_cache(maxsize=1024)
def _aiohttp_address(url: httpx2.URL) -> yarl.URL:
    return yarl.URL(str(url), encoded=True)


@lru_cache(maxsize=64)
def aiohttp_timeout(connect: float | None, read: float | None) -> aiohttp.ClientTimeout:
    """How long connecting, and then a silence of the server, may take, in seconds."""
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

        Redirects within the origin are followed, as `http_redirects` says; others are the answer.

        Raises:
            AnswerTooLargeError: it has more bytes than we read.
            httpx2.DecodingError: it is not compressed as its headers say.
            httpx2.RequestError: no answer came, or not all of it.
        """
        left = MAX_REDIRECTS
        while True:
            try:
                async with self._open_session().request(
                    method,
                    url,
                    headers=headers,
                    data=content,
                    timeout=timeout,
                    auto_decompress=True,
                    allow_redirects=False,
                ) as answer:
                    body = await _read_bounded(answer)
            except (aiohttp.ClientError, OSError) as exc:
                raise _translated(exc, None) from exc
            target = followed(method, url, answer.status, answer.headers.get("Location"))
            if target is None or not left:
                return Answer(answer.status, answer.headers, body, str(url))
            url, left = target, left - 1

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
                    keepalive_timeout=KEEPALIVE_SECONDS,
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
            timeout=aiohttp_timeout(seconds.get("connect"), seconds.get("read")),
        )


class _Body(httpx2.AsyncByteStream):
    """An answer's body as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse, request: httpx2.Request) -> None:
        self._answer = answer
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        # No generator: each part of a streamed answer would pass through it.
        try:
            part = await self._answer.content.readany()
        except (aiohttp.ClientError, OSError) as exc:
            raise _translated(exc, self._request) from exc
        if not part:
            raise StopAsyncIteration
        return part

    async def aclose(self) -> None:
        # Closes the connection unless the body was read to its end.
        self._answer.release()
        await self._answer.wait_for_close()


async def _read_bounded(answer: aiohttp.ClientResponse) -> bytes:
    """The whole body, as long as it is not too large."""
    content = answer.content
    parts: list[bytes] = []
    size = answer.content_length or 0  # as announced, and compressed where it is
    if content.is_eof():  # the usual case: it came along with the headers
        parts.append(await answer.read())
        size = len(parts[0])
    elif size <= MAX_ANSWER_BYTES:
        size = 0
        async for chunk in content.iter_any():
            parts.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                break
    if size > MAX_ANSWER_BYTES:
        answer.close()
        raise AnswerTooLargeError("the answer is too large")
    return b"".join(parts)


def _extensions(answer: aiohttp.ClientResponse) -> dict[str, Any]:
    reason = answer.reason
    return {"reason_phrase": reason.encode("ascii", "ignore")} if reason else {}


def _translated(exc: Exception, request: httpx2.Request | None) -> httpx2.RequestError:
    """The error by httpx2's names; without aiohttp's text, which quotes addresses."""
    if isinstance(exc.__cause__, ContentEncodingError):
        return httpx2.DecodingError("ContentEncodingError", request=request)
    kind = next(theirs for ours, theirs in _TRANSLATIONS if isinstance(exc, ours))
    return kind(type(exc).__name__, request=request)
