"""Deliveries, and receivers that answer as they are told."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from clasper_worker.webhooks.payload import Delivery

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass
class Received:
    """What came in one connection, up to the end of its body."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """An HTTP server of one canned answer."""

    port: int = 0
    requests: list[Received] = field(default_factory=list)
    connections: int = 0


@asynccontextmanager
async def receiver(
    answer: bytes | None = OK,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Receiver]:
    """Serve ``answer`` to each request; None keeps the caller waiting."""
    seen = Receiver()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.connections += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = dict(line.split(": ", 1) for line in head[1:] if line)
            body = await reader.readexactly(int(headers.get("Content-Length", 0)))
            seen.requests.append(Received(head[0], headers, body))
            if answer is not None:
                writer.write(answer)
                await writer.drain()
            await reader.read()  # until the other side has had enough
        except (OSError, EOFError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, host, port, ssl=tls)
    seen.port = server.sockets[0].getsockname()[1]
    try:
        yield seen
    finally:
        server.close()


@pytest.fixture
def delivery_to() -> Callable[..., Delivery]:
    """Make a delivery to a URL."""

    def make(url: str, **webhook: Any) -> Delivery:
        return Delivery.model_validate(
            {
                "delivery_id": "d-1",
                "event": "agent.completed",
                "turn_id": "t-1",
                "user_id": "u1",
                "webhook": {"url": url, **webhook},
                "body": '{"event":"agent.completed"}',
            }
        )

    return make
