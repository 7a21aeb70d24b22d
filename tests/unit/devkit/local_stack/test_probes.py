"""How the stack knows that a process is ready."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from clasper_worker.devkit.local_stack.ports import LOOPBACK, PortReservations
from clasper_worker.devkit.local_stack.probes import (
    HttpAnswers,
    PortListens,
    RedisAnswers,
    WorkerAnswers,
)


@asynccontextmanager
async def server(answer: bytes) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    listening = await asyncio.start_server(handle, LOOPBACK, 0)
    async with listening:
        yield listening.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("status", "ready"), [("200 OK", True), ("503 Unavailable", False), ("404 Not Found", False)]
)
async def test_a_server_is_ready_when_it_answers_with_200(
    status: str, ready: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # is not asked: this is our own server

    async with server(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()) as port:
        assert await HttpAnswers(f"http://{LOOPBACK}:{port}/health")(1) is ready


async def test_a_server_that_speaks_something_else_is_not_ready() -> None:
    async with server(b"nonsense\r\n\r\n") as port:
        assert not await HttpAnswers(f"http://{LOOPBACK}:{port}/health")(1)


async def test_nothing_is_ready_where_nobody_listens() -> None:
    with PortReservations() as ports:
        port = ports.choose(0)

        assert not await HttpAnswers(f"http://{LOOPBACK}:{port}/health")(1)
        assert not await PortListens(port)(1)
        assert not await RedisAnswers(port)(1)


async def test_a_port_is_ready_when_it_accepts_connections() -> None:
    with socket.create_server((LOOPBACK, 0)) as listening:
        assert await PortListens(listening.getsockname()[1])(1)


def test_a_worker_probe_hides_the_brokers_password() -> None:
    assert "pa55word" not in repr(WorkerAnswers("redis://:pa55word@host/0", "worker@host"))
