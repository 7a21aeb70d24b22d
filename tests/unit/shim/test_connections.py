"""Connections that hold back what they have, over real sockets."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from clasper_worker.shim.connections import MAX_HEADER_BYTES, BoundedConnection

WRITERS: list[asyncio.StreamWriter] = []
HALF_HEADERS = b"POST / HTTP/1.1\r\nHost: x\r\nX-"
HALF_BODY = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf"
WHOLE = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok"


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the body; `/endless` with bytes that do not end."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/endless":
        for _ in range(10_000):
            await send({"type": "http.response.body", "body": b"x" * 100_000, "more_body": True})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(**limits: Any) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    protocol = type("Protocol", (BoundedConnection,), limits)
    config = uvicorn.Config(
        echo,
        port=0,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    try:
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        await server.shutdown()


async def opened(port: int, sent: bytes) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    WRITERS.append(writer)
    writer.write(sent)
    await writer.drain()
    return reader, writer


@pytest.fixture(autouse=True)
async def closed_clients() -> AsyncIterator[None]:
    yield
    while WRITERS:
        writer = WRITERS.pop()
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - the server announces nothing
            await asyncio.sleep(0.01)


async def answer(port: int, sent: bytes) -> tuple[int, bytes]:
    """The status and body of what a connection that sends this and no more is told at last."""
    reader, _ = await opened(port, sent)
    async with asyncio.timeout(30):
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        body = await reader.read()
    return int(head.split()[1]), body


@pytest.mark.parametrize(("sent", "part"), [(HALF_HEADERS, "headers"), (HALF_BODY, "body")])
async def test_a_half_sent_request_is_told_that_it_took_too_long(sent: bytes, part: str) -> None:
    async with serving(header_seconds=0.1, body_seconds=0.1) as (port, _):
        status, body = await answer(port, sent)
    assert (status, json.loads(body)["code"]) == (408, "request_timeout")
    assert part in json.loads(body)["error"]


async def test_bytes_that_drip_in_do_not_prolong_the_time() -> None:
    async with serving(header_seconds=0.2) as (port, server):
        _, writer = await opened(port, HALF_HEADERS)
        async with asyncio.timeout(30):
            with suppress(ConnectionError):
                while server.server_state.connections:
                    writer.write(b"a")
                    await writer.drain()
                    await asyncio.sleep(0.01)


@pytest.mark.parametrize("held", [HALF_HEADERS, HALF_BODY])
async def test_others_are_served_while_three_hundred_hold_back(held: bytes) -> None:
    async with serving(cap=100) as (port, server):
        for _ in range(300):
            await opened(port, held)
        status, _ = await answer(port, WHOLE.replace(b"Host: x", b"Host: x\r\nConnection: close"))
        assert status == 200
        assert len(server.server_state.connections) <= 100


async def test_where_all_are_at_work_one_more_is_told_to_come_later() -> None:
    async with serving(cap=2) as (port, server):
        for connection in range(2):
            await opened(port, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: len(server.server_state.tasks) > connection)  # noqa: B023
        status, body = await answer(port, WHOLE)
    assert (status, json.loads(body)["code"]) == (503, "too_many_connections")


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    async with serving(write_seconds=0.1) as (port, server):
        reader, _ = await opened(port, b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.read(1)
        await until(lambda: not server.server_state.connections)


async def test_a_connection_may_send_one_request_after_another() -> None:
    async with serving(header_seconds=5) as (port, _):
        reader, writer = await opened(port, WHOLE)
        for _ in range(3):
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200")
            assert b"ok" in await reader.read(100)
            writer.write(WHOLE)


async def test_headers_beyond_the_cap_and_what_is_no_http_are_clear_errors() -> None:
    async with serving() as (port, _):
        long = b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * (2 * MAX_HEADER_BYTES)
        assert (await answer(port, long))[0] == 431
        status, body = await answer(port, b"\x16\x03\x01 no http\r\n\r\n")
        assert (status, json.loads(body)["code"]) == (400, "http_400")
