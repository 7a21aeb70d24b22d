"""The least HTTP/1.1 that a real client can talk to: keep-alive, and pipelined requests in order.

A raw ``asyncio.Protocol``, so that the servers of the benchmark take next to nothing of the
processors that it measures. Bodies need a Content-Length; chunked ones are refused with 411.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

try:
    import uvloop

    _new_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
except ImportError:
    _new_loop = asyncio.new_event_loop


@dataclass(slots=True)
class Request:
    """One request; ``head`` is its first line and headers as sent."""

    method: bytes
    path: bytes
    query: bytes
    head: bytes
    body: bytes

    def header(self, name: bytes) -> bytes:
        """A header's value, or nothing; ``name`` in lower case."""
        at = self.head.lower().find(b"\r\n" + name + b":")
        if at < 0:
            return b""
        end = self.head.find(b"\r\n", at + 2)
        return self.head[at + len(name) + 3 : end if end >= 0 else None].strip()


@dataclass(slots=True)
class Answer:
    """What to answer, and after how many seconds.

    With ``parts`` these are the answer, as server-sent events; between two of them is a ``pause``.
    """

    body: bytes
    status: bytes = b"200 OK"
    delay: float = 0.0
    parts: tuple[Callable[[], bytes], ...] = ()
    pause: float = 0.0


Handler = Callable[[Request], Answer]


class Connection(asyncio.Protocol):
    """One client's connection.

    A delayed answer holds back those of the requests that follow on the same connection, as
    HTTP/1.1 wants it; clients that do not pipeline never notice.
    """

    def __init__(self, handler: Handler, loop: asyncio.AbstractEventLoop) -> None:
        self._handler = handler
        self._loop = loop
        self._buffer = b""
        self._waiting: list[Request] = []
        self._delayed = False
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's does not say so

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._transport = None

    def data_received(self, data: bytes) -> None:
        self._buffer = self._buffer + data if self._buffer else data
        while (request := self._next_request()) is not None:
            if self._delayed:
                self._waiting.append(request)
            else:
                self._serve(request)

    def _next_request(self) -> Request | None:
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n")
        if end < 0:
            return None
        head = buffer[:end]
        lowered = head.lower()
        at = lowered.find(b"\r\ncontent-length:")
        if at < 0:
            if b"\r\ntransfer-encoding:" in lowered:
                self._write(Answer(b"{}", b"411 Length Required"))
                self._buffer = b""
                if self._transport is not None:
                    self._transport.close()
                return None
            length = 0
        else:
            stop = head.find(b"\r\n", at + 2)
            length = int(head[at + 17 : stop if stop >= 0 else None])
        total = end + 4 + length
        if len(buffer) < total:
            return None
        self._buffer = buffer[total:]
        method, target, _ = head[: head.find(b"\r\n")].split(b" ", 2)
        path, _, query = target.partition(b"?")
        return Request(method, path, query, head, buffer[end + 4 : total])

    def _serve(self, request: Request) -> None:
        answer = self._handler(request)
        if answer.parts:
            self._delayed = True
            self._loop.call_later(answer.delay, self._begin, answer)
        elif answer.delay > 0:
            self._delayed = True
            self._loop.call_later(answer.delay, self._later, answer)
        else:
            self._write(answer)

    def _begin(self, answer: Answer) -> None:
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
        self._part(answer, 0)

    def _part(self, answer: Answer, number: int) -> None:
        if self._transport is None:
            return
        part = answer.parts[number]()
        self._transport.write(b"%x\r\n%s\r\n" % (len(part), part))
        if number + 1 < len(answer.parts):
            self._loop.call_later(answer.pause, self._part, answer, number + 1)
        else:
            self._transport.write(b"0\r\n\r\n")
            self._go_on()

    def _later(self, answer: Answer) -> None:
        self._write(answer)
        self._go_on()

    def _go_on(self) -> None:
        self._delayed = False
        while self._waiting and not self._delayed:
            self._serve(self._waiting.pop(0))

    def _write(self, answer: Answer) -> None:
        if self._transport is not None:
            self._transport.write(
                b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                % (answer.status, len(answer.body), answer.body)
            )


def serve(handler: Handler) -> None:
    """Serve on a free port of 127.0.0.1, print the port as JSON, go on until the parent ends.

    The parent keeps this process's standard input open: where that ends, the parent has ended.
    """
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = loop.run_until_complete(
        loop.create_server(lambda: Connection(handler, loop), sock=listener, backlog=8192)
    )
    print(json.dumps({"port": listener.getsockname()[1]}), flush=True)
    loop.add_reader(sys.stdin.fileno(), lambda: os.read(sys.stdin.fileno(), 4096) or loop.stop())
    loop.run_forever()
    server.close()
