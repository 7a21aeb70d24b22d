"""Redirects: none to another origin, none that changes the method, wherever we send HTTP."""

import asyncio
import gc
import importlib.util
import json
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.error import HTTPError

import httpx2
import pytest
import yarl
from aiohttp import web
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from openai import AsyncOpenAI

from clasper_worker.cli import cli
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.engine.http.client import LeanClient, open_http_client
from clasper_worker.engine.http.redirects import MAX_REDIRECTS, followed, is_loopback, told
from clasper_worker.errors import BackendMovedError, ConfigurationError, ModelRejectedError
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.providers.catalogue import ModelRef
from clasper_worker.llm.providers.openai import OpenAICompatibleModel
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.periodic.enqueue import ShimQueue
from clasper_worker.prompt.context import _blocking_client
from clasper_worker.prompt.retrieval.embedders import OpenAIEmbedder
from clasper_worker.prompt.retrieval.embedding import EmbeddingError
from clasper_worker.shim.backend_probe import backend_answers
from tests.unit.periodic.test_enqueue_shim_queue import job

# The openai package's client for proxies leaves a socket to the garbage collector when it closes.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)

HERE = "http://backend.test/api/tasks"
STATUSES = [301, 302, 303, 307, 308]
EXAMPLE = Path(__file__).parents[4] / "examples" / "read_backend.py"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize(
    "location",
    [
        "http://other.test/api/tasks",
        "https://backend.test/api/tasks",
        "http://backend.test:8080/api/tasks",
        "//other.test/api/tasks",
        "http://backend.test.other.test/",
        "http://backend.test@other.test/",
        "http://user:pass@backend.test/api/tasks",
        "javascript:alert(1)",
        "file:///etc/passwd",
        "http:// :99999/",
        "",
        None,
    ],
)
def test_no_redirect_leads_to_another_origin(
    method: str, status: int, location: str | None
) -> None:
    assert followed(method, yarl.URL(HERE), status, location) is None
    assert "pass@" not in told(method, HERE, status, location)


@pytest.mark.parametrize("status", STATUSES)
def test_within_the_origin_the_same_method_is_used_again_or_none(status: int) -> None:
    there = yarl.URL("http://backend.test/api/tasks/")
    assert followed("GET", yarl.URL(HERE), status, "/api/tasks/") == there
    again = followed("POST", yarl.URL(HERE), status, "http://BACKEND.test:80/api/tasks/")
    assert (again is not None) is (status in {307, 308})


@given(st.text(max_size=40), st.sampled_from([*STATUSES, 300, 304, 305, 399]))
def test_any_text_as_a_location_stays_within_the_origin_and_can_be_told(
    location: str, status: int
) -> None:
    target = followed("GET", yarl.URL(HERE), status, location)
    assert target is None or target.origin() == yarl.URL(HERE).origin()
    assert told("GET", HERE, status, location).isprintable()


def test_what_is_told_shows_where_to_and_no_query() -> None:
    text = told("POST", HERE, 307, "https://other.test/login?token=SECRET#SECRET")
    assert "https://other.test/login" in text
    assert "SECRET" not in text
    assert "POST does not survive" in told("POST", HERE, 302, "/api/tasks/")


@pytest.mark.parametrize(
    ("host", "expected"),
    [("localhost", True), ("a.localhost", True), ("127.8.0.1", True), ("::1", True),
     ("[::1]", True), ("127.0.0.1.evil.test", False), ("10.0.0.1", False), (None, False)],
)  # fmt: skip
def test_loopback_is_told_from_names_that_look_like_it(host: str | None, expected: bool) -> None:
    assert is_loopback(host) is expected


class Origin:
    """A server that notes what it gets and answers as it is told."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.status = 307
        self.location: Callable[[str], str] | None = None
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        origin = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                headers = {name.lower(): value for name, value in self.headers.items()}
                origin.seen.append((self.command, self.path, headers, body))
                where = origin.location and origin.location(self.path)
                if where:
                    self.send_response(origin.status)
                    self.send_header("Location", where)
                    answer = b""
                else:
                    self.send_response(200)
                    answer = json.dumps({"id": "1", "items": []}).encode()
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = _answer  # noqa: N815 - http.server's names

            def log_message(self, *_: Any) -> None:
                pass

        return Handler

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
async def two_origins() -> AsyncIterator[tuple[Origin, Origin]]:
    here, elsewhere = Origin(), Origin()
    here.location = lambda path: elsewhere.url + path
    yield here, elsewhere
    for _ in range(3):  # the loop closes the clients' sockets in its next rounds
        await asyncio.sleep(0)
    gc.collect()  # here, where what it finds is expected
    here.close()
    elsewhere.close()


@pytest.fixture(params=["direct", "proxied"])
def client_of(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], httpx2.AsyncClient]:
    """Both kinds of clients: straight on aiohttp, and the one for where there is a proxy."""

    def make(base_url: str) -> httpx2.AsyncClient:
        if request.param == "direct":
            return open_http_client(5, base_url)
        # The proxy is for another scheme: the client is the one for proxies, and reaches us.
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        client = open_http_client(5, base_url, server="http://backend.test")
        assert not isinstance(client, LeanClient)
        return client

    return make


Client = Callable[[str], httpx2.AsyncClient]


async def _posted(client: httpx2.AsyncClient) -> dict[str, Any]:
    headers = {"X-Agent-Token": "TOKEN", "X-Internal-Token": "INTERNAL"}
    try:
        return await BackendTransport(client, attempts=2).request(
            "POST", "/api/messages", headers=lambda: headers, body={"content": "a paid reply"}
        )
    finally:
        await client.aclose()


@pytest.mark.parametrize("status", STATUSES)
async def test_a_backend_cannot_send_tokens_or_replies_to_another_origin(
    two_origins: tuple[Origin, Origin], client_of: Client, status: int
) -> None:
    here, elsewhere = two_origins
    here.status = status
    with pytest.raises(BackendMovedError) as caught:
        await _posted(client_of(here.url))
    assert elsewhere.seen == []
    assert len(here.seen) == 1
    assert f"{elsewhere.url}/api/messages" in str(caught.value)
    assert caught.value.details["variable"] == "BACKEND_URL"
    assert "BACKEND_URL" in str(caught.value)
    assert not caught.value.transient


@pytest.mark.parametrize("status", [301, 302, 303])
async def test_a_post_never_becomes_a_get(
    two_origins: tuple[Origin, Origin], client_of: Client, status: int
) -> None:
    here, _ = two_origins
    here.status = status
    here.location = lambda path: "/elsewhere" if path == "/api/messages" else ""
    with pytest.raises(BackendMovedError):
        await _posted(client_of(here.url))
    assert [method for method, *_ in here.seen] == ["POST"]


@pytest.mark.parametrize("status", [307, 308])
async def test_within_the_origin_a_post_is_made_again_whole(
    two_origins: tuple[Origin, Origin], client_of: Client, status: int
) -> None:
    here, _ = two_origins
    here.status = status
    here.location = lambda path: "/api/messages/" if path == "/api/messages" else ""
    assert await _posted(client_of(here.url)) == {"id": "1", "items": []}
    assert [(method, path) for method, path, *_ in here.seen] == [
        ("POST", "/api/messages"), ("POST", "/api/messages/"),
    ]  # fmt: skip
    assert json.loads(here.seen[1][3]) == {"content": "a paid reply"}
    assert here.seen[1][2]["x-agent-token"] == "TOKEN"


async def test_a_loop_of_redirects_ends(
    two_origins: tuple[Origin, Origin], client_of: Client
) -> None:
    here, _ = two_origins
    here.location = lambda path: path
    with pytest.raises(BackendMovedError, match="again and again"):
        await _posted(client_of(here.url))
    assert len(here.seen) == MAX_REDIRECTS + 1


@pytest.mark.parametrize("status", STATUSES)
async def test_the_providers_key_and_prompts_stay_with_the_provider(
    two_origins: tuple[Origin, Origin], client_of: Client, status: int
) -> None:
    here, elsewhere = two_origins
    here.status = status
    client = AsyncOpenAI(
        api_key="sk-SECRET",
        base_url=f"{here.url}/v1",
        max_retries=0,
        http_client=client_of(here.url),
    )
    async with client:
        with pytest.raises(ModelRejectedError, match="OPENAI_BASE_URL") as caught:
            await OpenAICompatibleModel(client, ModelRef("openai", "m")).complete(
                [ChatMessage("user", "Hello")]
            )
        assert elsewhere.url in str(caught.value)
        embedder = OpenAIEmbedder(client, lambda: _blocking_client(client))
        with pytest.raises(EmbeddingError, match="OPENAI_BASE_URL"):
            await embedder.query("a private message")
        with pytest.raises(EmbeddingError, match="OPENAI_BASE_URL"):
            embedder.documents(["private memory"])
    assert elsewhere.seen == []
    assert [method for method, *_ in here.seen] == ["POST"] * 3


@pytest.mark.parametrize("status", STATUSES)
async def test_the_shims_key_stays_with_the_shim(
    two_origins: tuple[Origin, Origin], settings_of: Callable[..., Settings], status: int
) -> None:
    here, elsewhere = two_origins
    here.status = status
    queue = ShimQueue.from_settings(
        settings_of(agent_daemon_url=here.url, agent_daemon_api_key="KEY")
    )
    with pytest.raises(ConfigurationError, match="AGENT_DAEMON_URL"):
        await queue.put([job("u1")])
    await queue.aclose()
    assert elsewhere.seen == []


def test_send_over_http_says_where_the_shim_redirects_to(
    two_origins: tuple[Origin, Origin], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, elsewhere = two_origins
    monkeypatch.setenv("AGENT_DAEMON_URL", here.url)
    get_settings.cache_clear()
    result = CliRunner().invoke(cli, ["send", "--http", "--user", "u1", "Hello"])
    get_settings.cache_clear()
    assert isinstance(result.exception, ConfigurationError)
    assert elsewhere.url in str(result.exception)
    assert elsewhere.seen == []


async def test_a_backend_that_redirects_elsewhere_is_not_healthy(
    two_origins: tuple[Origin, Origin], settings_of: Callable[..., Settings]
) -> None:
    here, elsewhere = two_origins
    assert await backend_answers(settings_of(backend_url=here.url), 3.0) is False
    assert await backend_answers(settings_of(backend_url=elsewhere.url), 3.0) is True
    assert len(elsewhere.seen) == 1


@pytest.fixture
def example(two_origins: tuple[Origin, Origin], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("BACKEND_URL", two_origins[0].url)
    monkeypatch.setenv("AGENT_JWT_SECRET", "a secret of thirty-two characters")
    spec = importlib.util.spec_from_file_location("read_backend", EXAMPLE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_that_reads_a_backend_keeps_its_token_too(
    two_origins: tuple[Origin, Origin], example: ModuleType
) -> None:
    here, elsewhere = two_origins
    here.status = 302
    with pytest.raises(HTTPError, match="302") as caught:
        example.read_all("u1", "tasks")
    caught.value.close()
    assert elsewhere.seen == []


@pytest.fixture
async def proxy() -> AsyncIterator[tuple[str, list[str]]]:
    seen: list[str] = []

    async def note(request: web.BaseRequest) -> web.Response:
        seen.append(request.headers.get("X-Agent-Token", "none"))
        return web.json_response({})

    server = web.Server(note)
    runner = web.ServerRunner(server)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    yield f"http://{host}:{port}", seen
    await runner.cleanup()


async def test_a_server_of_this_machine_is_not_asked_through_a_proxy(
    two_origins: tuple[Origin, Origin],
    proxy: tuple[str, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    settings_of: Callable[..., Settings],
) -> None:
    here, _ = two_origins
    here.location = None
    address, seen = proxy
    monkeypatch.setenv("HTTP_PROXY", address)
    monkeypatch.setenv("http_proxy", address)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    async def through(client: httpx2.AsyncClient) -> None:
        async with client:
            await client.get(f"{here.url}/x", headers={"X-Agent-Token": "TOKEN"})

    attempts: list[Awaitable[object]] = [
        through(open_http_client(5, here.url)),
        through(open_http_client(5, server=here.url)),
        backend_answers(settings_of(backend_url=here.url), 3.0),
        ShimQueue.from_settings(settings_of(agent_daemon_url=here.url)).put([job("u1")]),
    ]
    for attempt in attempts:
        await attempt
    assert seen == []
    assert len(here.seen) == len(attempts)
