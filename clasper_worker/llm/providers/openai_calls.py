"""One try of a call of OpenAI's chat completions API, answered whole or bit by bit.

The client's low-level ``post`` with a plain body is used instead of ``chat.completions.create``:
the same request for half the CPU, since neither the parameters nor the answer go through its typed
models. A streamed answer is read from its bytes, for a tenth of what the client's own reader takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

import httpx2
import openai
from openai import AsyncOpenAI, AsyncStream
from openai._types import RequestOptions

from clasper_worker.llm.messages import Listen
from clasper_worker.llm.response_body import EmbeddedError, read_answer
from clasper_worker.llm.streamed_answer import CutAnswerError, StreamedAnswer

STREAMED: Mapping[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
"""The parameters that ask for an answer bit by bit."""

SILENCE_SECONDS = 60.0
"""For which a server may say nothing, not even in a comment, once its reply has begun."""
_AFTER_REPLY_SECONDS = 5.0  # for the usage, where a server does not say that it is done
_AFTER_END_SECONDS = 0.1  # for the end of the body: the connection can be used again then

# The client would make one, from the system's randomness, and not send it.
_NO_KEY: RequestOptions = {"idempotency_key": "none"}
# Our own limits hold for a stream: the client's would be set anew with each packet.
_STREAM_OPTIONS: RequestOptions = {**_NO_KEY, "timeout": httpx2.Timeout(None, connect=10.0)}


async def ask_whole(
    client: AsyncOpenAI, url: str, body: Mapping[str, Any], seconds: float | None
) -> dict[str, Any]:
    """Ask once; returns the chat completion.

    Args:
        client: whom to ask by.
        url: of the endpoint.
        body: of the request.
        seconds: how long it may take, however fast the bytes come.

    Raises:
        openai.OpenAIError: there was no answer, or an error.
        BrokenAnswerError: the answer is none.
    """
    try:
        # The client's own limit is on silences: one byte a second would never end.
        async with asyncio.timeout(seconds):
            response = await client.post(url, body=body, cast_to=httpx2.Response, options=_NO_KEY)
    except TimeoutError as exc:
        raise openai.APITimeoutError(httpx2.Request("POST", url)) from exc
    with _as_a_status(response):
        return read_answer(response.content)


async def ask_streamed(
    client: AsyncOpenAI, url: str, body: Mapping[str, Any], seconds: float | None, listen: Listen
) -> dict[str, Any]:
    """Ask once, with a body that asks for a stream; as `ask_whole` with a listener.

    An answer that ends before it is whole is a lost connection. Whatever ends the call, the
    connection is closed at once, unless all of the answer was read.
    """
    response: Any = None  # a httpx2.Response, though the client takes it for a stream of its own
    answer: StreamedAnswer | None = None
    try:
        async with asyncio.timeout(seconds) as limit:
            opened: object = await client.post(
                url,
                body=body,
                cast_to=httpx2.Response,  # which comes as it is, its body not read
                options=_STREAM_OPTIONS,
                stream=True,
                stream_cls=AsyncStream[Any],
            )
            response = cast("httpx2.Response", opened)
            is_stream = "event-stream" in response.headers.get("content-type", "")
            answer = StreamedAnswer(listen, is_stream=is_stream)
            with _as_a_status(response):
                await _read(response, answer, limit)
        with _as_a_status(response):
            return answer.end()
    except (TimeoutError, httpx2.RequestError, CutAnswerError) as exc:
        if response is None or answer is None or not answer.is_whole:
            request = httpx2.Request("POST", url)
            is_late = isinstance(exc, TimeoutError) and not (answer and answer.has_begun)
            if is_late or isinstance(exc, httpx2.TimeoutException):
                raise openai.APITimeoutError(request) from exc
            raise openai.APIConnectionError(request=request) from exc
        with _as_a_status(response):
            return answer.end()
    finally:
        if response is not None:
            await response.aclose()


async def _read(response: httpx2.Response, answer: StreamedAnswer, limit: asyncio.Timeout) -> None:
    """Read an answer to its end, or as long as more may come that counts."""
    loop = asyncio.get_running_loop()
    latest = limit.when()
    async for data in _parts(response):
        was_done = answer.is_done
        answer.feed(data)
        if was_done or not answer.has_begun:
            continue
        if answer.is_done:
            silence = _AFTER_END_SECONDS
        else:
            silence = _AFTER_REPLY_SECONDS if answer.is_whole else SILENCE_SECONDS
        until = loop.time() + silence
        if latest is not None:
            until = min(until, latest)
        before = limit.when()
        # Not for each packet: that a silence ends a sixtieth sooner does no harm.
        if before is None or not 0 <= until - before < silence / 60:
            limit.reschedule(until)


def _parts(response: httpx2.Response) -> AsyncIterator[bytes]:
    """The body as it comes, decompressed."""
    encoded = response.headers.get("content-encoding", "identity") != "identity"
    body: Any = response.aiter_bytes() if encoded else response.stream
    parts: AsyncIterator[bytes] = aiter(body)
    return parts


@contextmanager
def _as_a_status(response: httpx2.Response) -> Iterator[None]:
    """An error inside HTTP 200 as if it were the answer's status."""
    try:
        yield
    except EmbeddedError as exc:
        headers = {
            # What they say of trying again; not of the body, which is another.
            name: value
            for name, value in response.headers.items()
            if not name.startswith("content-")
        }
        status = httpx2.Response(exc.status, headers=headers, request=response.request)
        raise openai.APIStatusError(str(exc), response=status, body=exc.body) from exc
