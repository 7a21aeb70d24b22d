"""The page in a real browser: a chat that streams, through a network that is cut."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import jwt
import pytest
import uvicorn

from clasper_worker.devkit.reference_backend import BackendConfig, create_app
from clasper_worker.engine.http.listening import listen_on, url_of
from tests.chaos.workers import Nursery
from tests.integration.connected import connected
from tests.integration.turn.conftest import SECRET, answers, run_processes
from tests.network import network_to
from tests.scripted_shim import JOB, KEY, ScriptedShim, scripted_shim
from tests.waiting import until

pytestmark = [pytest.mark.integration, pytest.mark.needs_services]

HOSTILE = '"><script>window.ran=1</script><img src=x onerror="window.ran=1"><b>bold</b>'


@contextmanager
def serving(**config: Any) -> Iterator[str]:
    """The reference backend of this process, on a port of its own."""
    app = create_app(BackendConfig(agent_jwt_secret=SECRET, page=True, **config))
    with listen_on("127.0.0.1", 0, host_name="host", port_name="port") as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        url = url_of(listener)
        until(lambda: answers(f"{url}/health"), "the backend")
        try:
            yield url
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def shim() -> Iterator[ScriptedShim]:
    with scripted_shim() as shim:
        yield shim


@pytest.fixture
def site(shim: ScriptedShim) -> Iterator[str]:
    with serving(daemon_url=shim.url, daemon_key=KEY) as url:
        yield url


def post(site: str, path: str, **body: Any) -> dict[str, Any]:
    """As an agent does."""
    claims = {"type": "agent", "user_id": "u1", "agent_role": "writer"}
    token = jwt.encode({**claims, "exp": time.time() + 600}, SECRET)
    url = f"{site}/api/mission-control/{path}"
    answer = httpx2.post(url, json=body, headers={"X-Agent-Token": token})
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


def test_a_stream_that_is_cut_goes_on_with_each_chunk_once(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    with network_to(site) as network:
        tab = open_tab(network.url)
        tab.write("Write a line")
        shim.emit("queued", reason="session", ahead=2)
        tab.state("Queued, 2 before it")
        shim.emit("start", job_id=JOB, turn_id="t")
        shim.emit("step", step=1)
        shim.emit("chunk", data="One, ", step=1)
        shim.emit("chunk", data="two, ", step=1)
        tab.shows("#live .text", "One, two,")
        network.cut()
        shim.emit("chunk", data="three, ", step=1)
        shim.emit("chunk", data="four.", step=1)
        until(
            lambda: any("net::ERR_" in one for one in tab.problems) or tab.page.wait_for_timeout(50)
        )
        network.restore()
        tab.shows("#live .text", "One, two, three, four.")
        assert shim.resumed_after[0] is None
        assert shim.resumed_after[-1] == "e5"
        post(site, "messages", task_id=shim.sent[0]["task_id"], content="One, two, three, four.")
        shim.done("One, two, three, four.", cost={"model": "m-1", "totalCost": 0.0012})
        tab.state("Done")
        tab.shows("#figures", "m-1 · 7 + 5 tokens · $0.001200")
        tab.shows(".message.agent .text", "One, two, three, four.")
        tab.page.locator("#live").wait_for(state="hidden")


def test_a_retry_drops_its_step_and_tools_are_told_of(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    tab = open_tab(site)
    tab.write("Look it up")
    shim.emit("start", job_id=JOB)
    shim.emit("chunk", data="I look. ", step=1)
    shim.emit("tool", phase="call", step=1, index=0, tool="list_tasks")
    tab.state("Tool: list_tasks")
    shim.emit("tool", phase="result", step=1, index=0, tool="list_tasks", ok=True, seconds=0.25)
    shim.emit("chunk", data="Wrong beginning", step=2)
    tab.shows("#live .text >> nth=1", "Wrong beginning")
    shim.emit("waiting", reason="rate_limit", seconds=3)
    tab.state("Waiting: rate limit")
    shim.emit("retry", step=2)
    shim.emit("chunk", data="Right", step=2)
    tab.shows("#live .text >> nth=1", "Right")
    tab.shows("#live .text >> nth=0", "I look.")
    tab.shows("#live .tool", "→ list_tasks done, 0.25 s".removeprefix("→ "))
    shim.emit("error", error="The model is away", code="model_unavailable")
    tab.state("Failed: The model is away")


def test_a_page_that_is_loaded_again_shows_the_running_turn_whole(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    tab = open_tab(site)
    tab.write("Hello")
    shim.emit("start", job_id=JOB)
    shim.emit("chunk", data="As I was saying", step=1)
    tab.shows("#live .text", "As I was saying")
    tab.page.reload()
    tab.shows("#live .text", "As I was saying")
    shim.emit("chunk", data=", yes", step=1)
    tab.shows("#live .text", "As I was saying, yes")
    tab.page.locator("#stop").click()
    until(lambda: shim.cancelled or tab.page.wait_for_timeout(20))
    shim.emit("error", error="cancelled", code="cancelled")
    tab.state("Stopped")


def test_where_events_cannot_be_followed_the_result_is_asked_for(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    shim.has_events = False
    tab = open_tab(site)
    tab.write("Hello")
    until(lambda: shim.sent or tab.page.wait_for_timeout(20))
    post(site, "messages", task_id=shim.sent[0]["task_id"], content="Hello to you")
    shim.done("Hello to you")
    tab.state("Done")
    tab.shows(".message.agent .text", "Hello to you")
    tab.problems = [one for one in tab.problems if "404" not in one]  # Chromium tells of each


def test_hostile_text_is_shown_as_text_everywhere(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    task = post(site, "tasks", title=HOSTILE, status=HOSTILE)["id"]
    post(site, "messages", task_id=task, content=HOSTILE)
    post(site, "documents", task_id=task, title=HOSTILE, content=HOSTILE, doc_type=HOSTILE)
    post(site, "notifications", content=HOSTILE, session_key=HOSTILE)
    post(site, "tool-requests", tool=HOSTILE, arguments={HOSTILE: HOSTILE}, reason=HOSTILE)
    tab = open_tab(f"{site}/?user=u1&task={task}")
    tab.shows(".message.agent .text", HOSTILE)
    tab.page.locator("#side summary").click()
    tab.shows("#side details .text", HOSTILE)
    tab.write(HOSTILE)
    shim.emit("start", job_id=JOB)
    shim.emit("tool", phase="call", step=1, index=0, tool=HOSTILE)
    tab.shows("#live .tool", HOSTILE)
    shim.emit("waiting", reason=HOSTILE)
    shim.emit("chunk", data=HOSTILE, step=2)
    tab.shows("#live .text", HOSTILE)
    post(site, "messages", task_id=task, content=HOSTILE)  # while the turn runs: a live change
    shim.done(HOSTILE, cost={"model": HOSTILE})
    tab.state("Done")
    assert HOSTILE in tab.page.locator("#figures").inner_text()
    tab.counts("#thread .message", 3)
    assert tab.page.evaluate("window.ran") is None
    assert tab.page.locator("img, #thread b b, #live b b, #side b b").count() == 0


def test_data_appears_as_it_changes_and_a_person_decides(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    tab = open_tab(site)
    post(site, "tasks", title="A new task")
    tab.shows("#tasks li a span", "A new task")
    post(site, "tool-requests", tool="send_mail", arguments={"to": "a@example.com"})
    tab.page.locator("button[data-decide=approved]").click()
    tab.shows("#side .status", "approved")
    assert tab.page.locator("button[data-decide]").count() == 0


def test_what_could_not_be_sent_stays_and_is_sent_again_as_the_same_message(
    site: str, shim: ScriptedShim, open_tab: Any
) -> None:
    shim.refusal = (503, {"error": "the broker is away", "code": "unavailable"})
    tab = open_tab(site)
    tab.write("Hello")
    tab.state("Not sent: the broker is away")
    assert tab.page.locator("#message").input_value() == "Hello"
    shim.refusal = None
    tab.page.locator("#message").press("Enter")
    until(lambda: shim.sent or tab.page.wait_for_timeout(20))
    tab.shows(".message.user .text", "Hello")
    tab.problems = [one for one in tab.problems if "503" not in one]


def test_alone_the_page_says_that_no_worker_is_connected(open_tab: Any) -> None:
    with serving() as url:
        post(url, "tasks", title="A task")
        tab = open_tab(url)
        assert "No worker is connected" in tab.page.locator("#worker").inner_text()
        assert tab.page.locator("#send").is_disabled()
        tab.shows("#tasks li a span", "A task")


@pytest.fixture(scope="module")
def real_site(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[str]:
    """With a real worker, and a model that takes its time."""
    folder = tmp_path_factory.mktemp("page")
    with (
        contextmanager(run_processes)(folder, nursery) as processes,
        connected(processes, "--latency", "1", "--chunk-delay", "0.05") as found,
    ):
        yield found.backend_url


def test_a_turn_of_a_real_worker_survives_a_cut_network(
    real_site: str, open_tab: Any, tmp_path: Path
) -> None:
    with network_to(real_site) as network:
        tab = open_tab(f"{network.url}/?user=ada&role=writer")
        tab.write('Write a document called "Launch note" saying we launch on Friday.')
        tab.state("Running")
        network.cut()
        until(lambda: tab.is_cut() or tab.page.wait_for_timeout(50))
        network.restore()
        tab.state("Done")
        tab.shows("#side details summary b", "Launch note")
        tab.write('Create a task called "Invite the press", then list my tasks.')
        tab.state("Done")
        tab.shows("#tasks li a span >> nth=0", "Invite the press")
        tab.counts(".message.agent", 2)
        assert "tokens" in tab.page.locator("#figures").inner_text()
        shown = tab.page.locator(".message.agent .text").all_inner_texts()
        assert all("[offline model]" in text for text in shown)
    with network_to(real_site) as network:
        for scheme in ("light", "dark"):
            look = open_tab(
                f"{network.url}{tab.page.url[tab.page.url.index('/?') :]}", color_scheme=scheme
            )
            picture = look.page.screenshot(path=tmp_path / f"{scheme}.png")
            assert len(picture) < 200_000
