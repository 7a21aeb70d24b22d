"""``clasper send --stream``: a turn's text as it comes, from Redis or through the shim."""

from __future__ import annotations

import asyncio
import json
import shutil
import unicodedata
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TextIO
from urllib.parse import urlsplit

import httpx2

from clasper_worker.client import ClasperClient
from clasper_worker.engine.http.redirects import is_loopback
from clasper_worker.errors import ClasperError, StateUnavailableError
from clasper_worker.periodic.enqueue import refuse_redirect
from clasper_worker.streams.schema import (
    ChunkEvent,
    DoneEvent,
    ErrorEvent,
    RetryEvent,
    StreamEvent,
    read_event,
)

_RECONNECT_SECONDS = 0.5
_SILENCE_SECONDS = 40.0  # the shim gives a sign of life more often
_VOID = "[what stands above is void: the text starts anew]"


class Shown:
    """Writes the chunks of a turn; what turns out to be void is erased on a terminal.

    Elsewhere, and where it has scrolled out of sight, a line says so.

    Args:
        out: where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._step = 0
        self._text = ""

    def take(self, event: StreamEvent) -> None:
        """Show an event."""
        if isinstance(event, ChunkEvent):
            if self._text and event.step != self._step:
                self.end_line()
                self._text = ""
            self._step = event.step
            self._text += event.data
            self._out.write(event.data)
            self._out.flush()
        elif isinstance(event, RetryEvent) and self._text and event.step == self._step:
            self._void()
        elif isinstance(event, DoneEvent) and not self._text:  # it was not streamed
            self._text = str(event.model_dump().get("response", ""))
            self._out.write(self._text)

    def end_line(self) -> None:
        """Begin a new line, unless one was."""
        if self._text and not self._text.endswith("\n"):
            self._out.write("\n")
            self._out.flush()

    def _void(self) -> None:
        size = shutil.get_terminal_size()
        rows = sum(_rows(line, size.columns) for line in self._text.split("\n"))
        if self._out.isatty() and rows < size.lines:
            up = f"\x1b[{rows - 1}A" if rows > 1 else ""
            self._out.write(f"{up}\r\x1b[J")
        else:
            self.end_line()
            self._out.write(f"{_VOID}\n")
        self._text = ""
        self._out.flush()


def _rows(line: str, columns: int) -> int:
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in line)
    return max(1, -(-(len(line) + wide) // max(columns, 1)))


def follow_in_redis(
    client: ClasperClient, request: dict[str, Any], shown: Shown, seconds: float
) -> dict[str, Any]:
    """Enqueue a turn, show its text and return its result; see `_followed`."""
    stream = client.stream(request)
    ids = {"job_id": stream.job_id, "turn_id": stream.turn_id or stream.job_id}
    return asyncio.run(_followed(aiter(stream), shown, seconds, ids))


def follow_through_shim(
    base: str, headers: dict[str, str], request: dict[str, Any], shown: Shown, seconds: float
) -> dict[str, Any]:
    """The same through the shim, which is asked again where a connection breaks."""
    ids: dict[str, str] = {}
    return asyncio.run(_followed(_from_shim(base, headers, request, ids), shown, seconds, ids))


async def _followed(
    events: AsyncIterator[StreamEvent], shown: Shown, seconds: float, ids: dict[str, str]
) -> dict[str, Any]:
    """Show the events; returns the result.

    Raises:
        ClasperError: the turn failed.
        StateUnavailableError: it has not ended in so many seconds; it goes on.
    """
    try:
        async with asyncio.timeout(seconds), aclosing(events):  # type: ignore[type-var]
            async for event in events:
                shown.take(event)
                if isinstance(event, ErrorEvent):
                    raise ClasperError(f"{event.error} ({event.code})", event.details)
                if isinstance(event, DoneEvent):
                    return event.model_dump(exclude={"type"})
    except TimeoutError:
        raise StateUnavailableError(
            f"The turn has not ended within {seconds:g} s; it goes on. turn_id"
            f" {ids.get('turn_id', 'unknown')}. Is a worker running?",
            ids,
        ) from None
    finally:
        shown.end_line()
    raise StateUnavailableError("The stream ended without the turn's end", ids)


async def _from_shim(
    base: str, headers: dict[str, str], request: dict[str, Any], ids: dict[str, str]
) -> AsyncIterator[StreamEvent]:
    """The events of a turn; it is enqueued once, and then followed until its end."""
    trusts_environment = not is_loopback(urlsplit(base).hostname)
    timeout = httpx2.Timeout(10.0, read=_SILENCE_SECONDS)
    last_id: str | None = None
    url: str | None = None
    async with httpx2.AsyncClient(
        timeout=timeout, follow_redirects=False, trust_env=trusts_environment
    ) as http:
        while True:
            asked: dict[str, Any]
            if url is None:
                asked = {"method": "POST", "url": f"{base}/api/agents/stream", "json": request}
            else:
                asked = {"method": "GET", "url": f"{base}{url}"}
            resume = {"Last-Event-ID": last_id} if last_id else {}
            try:
                async with http.stream(**asked, headers={**headers, **resume}) as answer:
                    refuse_redirect(answer)
                    if answer.status_code != 200:
                        if url is None or answer.status_code < 500:
                            _refuse(answer.status_code, await answer.aread())
                        await asyncio.sleep(_RECONNECT_SECONDS)
                        continue  # the shim, or its Redis, is on its way back; the turn goes on
                    url = url or answer.headers.get("content-location")
                    async for event_id, data in _events(answer.aiter_lines()):
                        last_id = event_id
                        ids.update({k: data[k] for k in ("job_id", "turn_id") if k in data})
                        event = read_event(event_id, data)
                        yield event
                        if isinstance(event, DoneEvent | ErrorEvent):
                            return
            except httpx2.HTTPError as exc:
                if url is None:  # it may have been enqueued, or not: nobody knows
                    raise StateUnavailableError(
                        f"The shim does not answer ({type(exc).__name__}): check AGENT_DAEMON_URL"
                    ) from exc
            if url is None:  # nothing says where to go on
                return
            await asyncio.sleep(_RECONNECT_SECONDS)


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """Ids and data of server-sent events."""
    event_id, data = "", ""
    async for line in lines:
        name, _, value = line.partition(":")
        if name == "id":
            event_id = value.removeprefix(" ")
        elif name == "data":
            data += value.removeprefix(" ")
        elif not line and data:
            yield event_id, json.loads(data)
            data = ""


def _refuse(status: int, content: bytes) -> None:
    try:
        body = json.loads(content)
    except ValueError:
        body = {}
    known = body if isinstance(body, dict) else {}
    if status >= 500 and known.get("code") != "configuration":
        raise StateUnavailableError(f"The shim answered: {known.get('error')} (HTTP {status})")
    code = f"{known.get('code')}, HTTP {status}"
    raise ClasperError(f"The shim answered: {known.get('error', 'no error text')} ({code})",
                       known.get("details"))  # fmt: skip
