"""The HTTP client against a real server: what goes out, what comes back, and what breaks."""

import asyncio
import gzip
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import httpx2
import openai
import pytest
from aiohttp import web

from clasper_worker.engine.http.client import LeanClient, open_http_client
from clasper_worker.engine.http.transport import MAX_ANSWER_BYTES, AnswerTooLargeError
from clasper_worker.errors import BackendProtocolError
from clasper_worker.mission_control.transport import BackendTransport


async def echo(request: web.Request) -> web.Response:
    return web.json_response(
        {
            "method": request.method,
            "path": request.path_qs,
            "headers": dict(request.headers),
            "body": (await request.read()).decode(),
        },
        headers={"X-Answer": "yes", "Set-Cookie": "session=1"},
    )


async def zipped(_: web.Request) -> web.Response:
    body = gzip.compress(b'{"zipped": true}')
    return web.Response(body=body, headers={"Content-Encoding": "gzip"})


async def moved(request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("/echo?moved=1")


async def silent(_: web.Request) -> web.Response:
    await asyncio.Event().wait()
    raise AssertionError


async def dropped(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def cut_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100"})
    await response.prepare(request)
    await response.write(b"ten bytes.")
    assert request.transport is not None
    request.transport.close()
    return response


async def completion(request: web.Request) -> web.Response:
    sent = await request.json()
    return web.json_response({"echo": sent, "authorization": request.headers["Authorization"]})


async def events(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for number in range(3):
        await response.write(f"data: {number}\n\n".encode())
    return response


@pytest.fixture
async def server() -> AsyncIterator[str]:
    app = web.Application()
    app.add_routes(
        [web.route("*", f"/{handler.__name__}", handler)
         for handler in (echo, zipped, moved, silent, dropped, cut_off, completion, events)]
    )  # fmt: skip
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}"
    await runner.cleanup()


@asynccontextmanager
async def lean(base_url: str, silence_seconds: float = 20) -> AsyncIterator[LeanClient]:
    client = LeanClient(base_url=base_url, timeout=httpx2.Timeout(silence_seconds, connect=5))
    try:
        yield client
    finally:
        await client.aclose()


How = Callable[[LeanClient, str], Awaitable[object]]


async def fetched(client: LeanClient, path: str) -> object:
    return await client.fetch("POST", path, headers={}, content=b"x")


async def sent(client: LeanClient, path: str) -> object:
    return await client.post(path, content=b"x")


async def test_fetch_sends_what_it_is_given_and_returns_the_answer_whole(server: str) -> None:
    async with lean(server) as client:
        answer = await client.fetch(
            "POST",
            "/echo",
            headers={"X-Agent-Token": "t", "Content-Type": "application/json"},
            params={"limit": 5, "cursor": "a b&c"},
            content='{"é": 1}'.encode(),
        )
    assert answer.status == 200
    assert answer.headers.get("x-answer") == "yes"
    got = json.loads(answer.body)
    assert (got["method"], got["path"], got["body"]) == (
        "POST", "/echo?limit=5&cursor=a+b%26c", '{"é": 1}',
    )  # fmt: skip
    assert got["headers"]["X-Agent-Token"] == "t"
    assert got["headers"]["User-Agent"].startswith("clasper-worker/")
    assert "é" not in repr(answer)


async def test_a_client_behaves_as_httpx2s_own_for_plain_requests(server: str) -> None:
    def ask(client: httpx2.AsyncClient) -> Awaitable[httpx2.Response]:
        return client.request(
            "POST", "/echo", params={"q": "1 2"}, headers={"X-One": "1"}, content=b"body"
        )

    async with lean(server) as ours, httpx2.AsyncClient(base_url=server) as theirs:
        mine, original = await ask(ours), await ask(theirs)
    ignored = {"User-Agent"}
    one, other = mine.json(), original.json()
    for answer in (one, other):
        answer["headers"] = {k: v for k, v in answer["headers"].items() if k not in ignored}
    assert one == other
    assert mine.headers["x-answer"] == "yes"
    assert mine.request.method == "POST"


async def test_what_a_plain_request_cannot_do_goes_the_ordinary_way(server: str) -> None:
    async with lean(server) as client:
        form = (await client.post("/echo", data={"a": "1"})).json()
        as_json = (await client.post("/echo", json={"a": 1})).json()
        other = (await client.get(f"{server}/echo", timeout=3)).json()
    assert form["body"] == "a=1"
    assert json.loads(as_json["body"]) == {"a": 1}
    assert other["method"] == "GET"


async def test_cookies_are_neither_kept_nor_sent(server: str) -> None:
    async with lean(server) as client:
        await client.get("/echo")
        await client.fetch("GET", "/echo", headers={})
        assert "Cookie" not in (await client.get("/echo")).json()["headers"]
        again = await client.fetch("GET", "/echo", headers={})
    assert "Cookie" not in json.loads(again.body)["headers"]


async def test_answers_are_decompressed(server: str) -> None:
    async with lean(server) as client:
        assert (await client.get("/zipped")).json() == {"zipped": True}
        answer = await client.fetch("GET", "/zipped", headers={})
    assert json.loads(answer.body) == {"zipped": True}


async def test_a_redirect_is_followed_with_method_and_body(server: str) -> None:
    async with lean(server) as client:
        got = (await client.post("/moved", content=b"body")).json()
        answer = await client.fetch("POST", "/moved", headers={}, content=b"body")
    for found in (got, json.loads(answer.body)):
        assert (found["path"], found["body"]) == ("/echo?moved=1", "body")


@pytest.mark.parametrize("how", [fetched, sent])
@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/silent", httpx2.ReadTimeout),
        ("/dropped", httpx2.RemoteProtocolError),
        ("/cut_off", httpx2.ReadError),
    ],
)
async def test_what_breaks_on_the_way_has_httpx2s_name(
    server: str, how: How, path: str, error: type[Exception]
) -> None:
    async with lean(server, 0.2) as client:
        with pytest.raises(error):
            await how(client, path)


@pytest.mark.parametrize("how", [fetched, sent])
async def test_a_refused_connection_is_told_from_a_timeout(how: How) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]  # bound, and nobody listens
        async with lean(f"http://127.0.0.1:{port}") as client:
            with pytest.raises(httpx2.ConnectError):
                await how(client, "/echo")


@pytest.mark.parametrize("address", ["ftp://host", "http://", "http://h:99999"])
async def test_an_address_that_is_none_is_an_error_of_httpx2(address: str) -> None:
    async with lean(address) as client:
        with pytest.raises((httpx2.InvalidURL, httpx2.UnsupportedProtocol)):
            await fetched(client, "/x")


async def test_a_cancelled_request_ends_at_once_and_the_client_goes_on(server: str) -> None:
    async with lean(server) as client:
        request = asyncio.ensure_future(fetched(client, "/silent"))
        await asyncio.sleep(0.01)
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        assert (await client.fetch("GET", "/echo", headers={})).status == 200


async def test_the_openai_client_works_over_it_streaming_too(server: str) -> None:
    http = open_http_client(20)
    async with openai.AsyncOpenAI(
        api_key="sk-1", base_url=server, http_client=http, max_retries=0
    ) as client:
        response = await client.post(f"{server}/completion", body={"a": 1}, cast_to=httpx2.Response)
        assert response.json() == {"echo": {"a": 1}, "authorization": "Bearer sk-1"}
        async with http.stream("GET", f"{server}/events") as stream:
            lines = [line async for line in stream.aiter_lines() if line]
    assert lines == ["data: 0", "data: 1", "data: 2"]


async def test_where_the_environment_names_a_proxy_a_client_that_uses_it_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    client = open_http_client(20)
    assert not isinstance(client, LeanClient)
    await client.aclose()
    monkeypatch.delenv("HTTPS_PROXY")
    client = open_http_client(20)
    assert isinstance(client, LeanClient)
    await client.aclose()


@pytest.mark.parametrize("compressed", [False, True])
async def test_an_answer_that_is_too_large_is_not_read_to_its_end(compressed: bool) -> None:
    body = b"x" * (MAX_ANSWER_BYTES + 1)

    async def large(_: web.Request) -> web.Response:
        if compressed:
            return web.Response(body=gzip.compress(body), headers={"Content-Encoding": "gzip"})
        return web.Response(body=body)

    async def mislabelled(_: web.Request) -> web.Response:
        return web.Response(body=b"{}", headers={"Content-Encoding": "gzip"})

    app = web.Application()
    app.add_routes([web.get("/large", large), web.get("/mislabelled", mislabelled)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    async with lean(f"http://{host}:{port}") as client:
        with pytest.raises(AnswerTooLargeError):
            await client.fetch("GET", "/large", headers={})
        with pytest.raises(httpx2.DecodingError):
            await client.fetch("GET", "/mislabelled", headers={})
        transport = BackendTransport(client, attempts=2)
        with pytest.raises(BackendProtocolError, match="has more than 16 MiB"):
            await transport.request("GET", "/large", headers=dict)
        with pytest.raises(BackendProtocolError, match="not compressed as it says"):
            await transport.request("GET", "/mislabelled", headers=dict)
    await runner.cleanup()
