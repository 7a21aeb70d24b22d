"""The page's routes over HTTP, with a shim of the test's own behind them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend import BackendConfig
from tests.scripted_shim import JOB, KEY, ScriptedShim, scripted_shim
from tests.waiting import eventually

HOSTILE = "\"><script>alert(1)</script><img src=x onerror=alert(1)>'&lt;javascript:alert(1)"


@pytest.fixture
def shim() -> Iterator[ScriptedShim]:
    with scripted_shim() as shim:
        yield shim


@pytest.fixture
def site(make_backend: Callable[..., Any], shim: ScriptedShim) -> Any:
    """A backend with the page on, and a shim behind it."""
    return make_backend(page=True, daemon_url=shim.url, daemon_key=KEY)


@pytest.fixture
async def browser(site: Any) -> Any:
    """A client that calls it as a browser on this machine does."""
    client = browser_of(site)
    yield client
    await client.aclose()
    await site.app.state.backend.worker.close()


def browser_of(site: Any) -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(site.app, raise_app_exceptions=False)
    return httpx2.AsyncClient(transport=transport, base_url="http://localhost:9001")


def turn(**fields: Any) -> dict[str, Any]:
    return {"user_id": "u1", "message": "Hello there", "idempotency_key": "k1", **fields}


class Elements(HTMLParser):
    """The elements of a page, and its text."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(markup)

    def handle_starttag(self, name: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((name, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data


async def seed(site: Any, text: str) -> str:
    """One of everything, with this text in every field that takes any; the task's id."""
    agent = site.agent()
    base = "/api/mission-control"

    async def post(path: str, **body: Any) -> Any:
        answer = await agent.post(f"{base}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    task_id: str = (await post("tasks", title=text, description=text, status=text))["id"]
    for actor in ("agent", "user", "system"):
        who = {"actor_type": actor, "actor_id": text}
        await post("messages", task_id=task_id, content=text, **who)
    await post("documents", task_id=task_id, title=text, content=text, doc_type=text)
    await post("notifications", content=text, session_key=text, task_title=text)
    arguments = {"tool": text, "arguments": {text: text}, "reason": text}
    await post("tool-requests", task_id=task_id, **arguments)
    return task_id


async def test_hostile_text_is_text_in_every_place(site: Any, browser: httpx2.AsyncClient) -> None:
    task_id = await seed(site, HOSTILE)
    page = await browser.get("/", params={"user": "u1", "task": task_id})
    elements = Elements(page.text)
    scripts = [attributes for name, attributes in elements.found if name == "script"]
    assert scripts == [{"src": "/page/page.js", "defer": None}]
    assert not [name for name, _ in elements.found if name in ("img", "style", "iframe", "base")]
    for _, attributes in elements.found:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for link in ("href", "src", "action"):
            assert str(attributes.get(link, "/")).startswith("/")
    # The title (in the list, the heading and the window), each actor's message, and so on.
    assert elements.text.count("<script>alert(1)</script>") >= 10


async def test_a_hostile_user_is_text(browser: httpx2.AsyncClient) -> None:
    page = await browser.get("/", params={"user": HOSTILE[:100]})
    assert [name for name, _ in Elements(page.text).found].count("script") == 1
    assert 'data-user="&quot;&gt;&lt;script' in page.text


async def test_the_policy_allows_nothing_but_the_page_s_own_files(
    browser: httpx2.AsyncClient,
) -> None:
    page = await browser.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self'" in policy
    assert "unsafe" not in policy
    for name in ("style.css", "page.js", "icon.svg"):
        answer = await browser.get(f"/page/{name}")
        assert answer.status_code == 200
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "http://" not in answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in answer.text
    assert (await browser.get("/page/..%2Froutes.py")).status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:9001", "192.168.0.7:9001"])
async def test_another_host_s_name_is_refused(browser: httpx2.AsyncClient, host: str) -> None:
    """A web page whose name was made to resolve to this machine (DNS rebinding)."""
    for path in ("/", "/page/events?user=u1", f"/page/turns/{JOB}"):
        answer = await browser.get(path, headers={"Host": host})
        assert answer.status_code == 403


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:3000", "null"])
async def test_another_origin_cannot_write(
    browser: httpx2.AsyncClient, shim: ScriptedShim, origin: str
) -> None:
    answer = await browser.post("/page/turns", json=turn(), headers={"Origin": origin})
    assert answer.status_code == 403
    assert shim.sent == []


async def test_the_page_is_off_unless_it_is_switched_on(make_backend: Callable[..., Any]) -> None:
    async with browser_of(make_backend()) as client:
        for path in ("/", "/page/page.js", "/page/events?user=u1"):
            assert (await client.get(path)).status_code == 404


async def test_what_a_person_writes_is_kept_and_a_streamed_turn_asked_for(
    site: Any, browser: httpx2.AsyncClient, shim: ScriptedShim
) -> None:
    own = {"Origin": "http://localhost:9001"}
    body = turn(message="Plan the launch\nby Friday", agent_role="writer")
    answer = await browser.post("/page/turns", json=body, headers=own)
    assert answer.status_code == 202
    task_id = answer.json()["task_id"]
    assert answer.json()["job_id"] == JOB
    tasks = (await site.agent().get("/api/mission-control/tasks")).json()["items"]
    assert [task["title"] for task in tasks] == ["Plan the launch by Friday"]
    query = {"task_id": task_id}
    messages = await site.agent().get("/api/mission-control/messages", params=query)
    (kept,) = messages.json()["items"]
    assert (kept["actor_type"], kept["content"]) == ("user", "Plan the launch\nby Friday")
    assert shim.sent == [
        {
            "user_id": "u1",
            "agent_role": "writer",
            "message": "Plan the launch\nby Friday",
            "task_id": task_id,
            "stream": True,
            "idempotency_key": "k1",
        }
    ]


async def test_sent_again_under_its_key_it_is_the_same_message_and_turn(
    site: Any, browser: httpx2.AsyncClient, shim: ScriptedShim
) -> None:
    shim.refusal = (503, {"error": "the broker is away", "code": "unavailable"})
    refused = await browser.post("/page/turns", json=turn())
    assert (refused.status_code, refused.json()["error"]) == (503, "the broker is away")
    shim.refusal = None
    assert (await browser.post("/page/turns", json=turn())).status_code == 202
    messages = await site.agent().get("/api/mission-control/messages")
    assert len(messages.json()["items"]) == 1
    assert len(shim.sent) == 1


async def test_another_tenant_s_task_is_not_there(site: Any, browser: httpx2.AsyncClient) -> None:
    task_id = await seed(site, "theirs")
    answer = await browser.post("/page/turns", json=turn(user_id="u2", task_id=task_id))
    assert answer.status_code == 404
    page = await browser.get("/", params={"user": "u2", "task": task_id})
    assert "theirs" not in page.text


async def test_a_message_of_blanks_is_refused(browser: httpx2.AsyncClient) -> None:
    assert (await browser.post("/page/turns", json=turn(message=" \n"))).status_code == 400


async def test_a_task_has_a_title_whatever_its_message_begins_with(
    site: Any, browser: httpx2.AsyncClient
) -> None:
    await browser.post("/page/turns", json=turn(message=" " * 1000 + "x"))
    tasks = (await site.agent().get("/api/mission-control/tasks")).json()["items"]
    assert [task["title"] for task in tasks] == ["New thread"]


async def test_without_a_worker_the_page_says_so_and_shows_the_data(
    make_backend: Callable[..., Any],
) -> None:
    alone = make_backend(page=True)
    task_id = await seed(alone, "Something")
    async with browser_of(alone) as client:
        page = (await client.get("/", params={"user": "u1", "task": task_id})).text
        assert "No worker is connected" in page
        assert page.count("Something") > 5
        answer = await client.post("/page/turns", json=turn())
    assert (answer.status_code, answer.json()["code"]) == (503, "no_worker")
    messages = await alone.agent().get("/api/mission-control/messages")
    assert len(messages.json()["items"]) == 3


async def test_a_shim_that_is_away_or_refuses_the_key_is_told_of(
    make_backend: Callable[..., Any], shim: ScriptedShim
) -> None:
    away = make_backend(page=True, daemon_url="http://127.0.0.1:9", daemon_key=KEY)
    async with browser_of(away) as client:
        assert "nothing answers at http://127.0.0.1:9" in (await client.get("/")).text
        answer = await client.post("/page/turns", json=turn())
        assert (answer.status_code, answer.json()["code"]) == (503, "worker_away")
    wrong = make_backend(page=True, daemon_url=shim.url, daemon_key="wrong-key")
    async with browser_of(wrong) as client:
        answer = await client.post("/page/turns", json=turn())
    assert (answer.status_code, answer.json()["code"]) == (502, "wrong_key")
    for site in (away, wrong):
        await site.app.state.backend.worker.close()


async def test_a_shim_that_is_not_ready_says_why_and_is_asked_again(
    site: Any, browser: httpx2.AsyncClient, shim: ScriptedShim
) -> None:
    worker = site.app.state.backend.worker
    worker.fresh_seconds = 0
    shim.readiness = (503, {"error": "Not ready; missing: a worker", "code": "not_ready"})
    assert "cannot take turns now: Not ready; missing: a worker" in (await browser.get("/")).text
    shim.readiness = (200, {"status": "ready"})
    await browser.get("/")
    await eventually(lambda: worker._found[0] is None, "the shim is asked again")
    assert "Worker connected" in (await browser.get("/")).text


async def test_only_the_first_waits_until_the_shim_has_said_whether_it_is_ready(
    site: Any, browser: httpx2.AsyncClient, shim: ScriptedShim
) -> None:
    worker = site.app.state.backend.worker
    worker.fresh_seconds = 0
    assert "Worker connected" in (await browser.get("/")).text
    shim.ready_now.clear()  # it asks its workers, which takes as long as it takes
    for _ in range(3):
        assert "Worker connected" in (await browser.get("/")).text
    shim.ready_now.set()


async def test_the_shim_s_key_reaches_no_browser(
    site: Any, browser: httpx2.AsyncClient, shim: ScriptedShim
) -> None:
    shim.done("Hello")
    answers = [
        await browser.get("/"),
        await browser.post("/page/turns", json=turn()),
        await browser.get(f"/page/turns/{JOB}"),
        await browser.get(f"/page/turns/{JOB}/events"),
        await browser.delete(f"/page/turns/{JOB}"),
    ]
    for answer in answers:
        assert answer.status_code < 300, answer.text
        assert KEY not in answer.text + str(answer.headers)
    assert KEY not in repr(site.app.state.backend)
    assert shim.cancelled == [JOB]


@pytest.mark.parametrize("told", ["header", "query"])
async def test_events_go_on_after_the_last_one_that_came(
    browser: httpx2.AsyncClient, shim: ScriptedShim, told: str
) -> None:
    shim.emit("start", job_id=JOB)
    shim.emit("chunk", data="Hel", step=1)
    shim.emit("chunk", data="lo\n\n\r\n", step=1)
    shim.done("Hello\n\n\r\n")
    last = {"headers": {"Last-Event-ID": "e2"}} if told == "header" else {"params": {"after": "e2"}}
    answer = await browser.get(f"/page/turns/{JOB}/events", **last)  # type: ignore[arg-type]
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert shim.resumed_after == ["e2"]
    blocks = answer.text.split("\r\n\r\n")[:-1]
    assert [block.split("\r\n")[0] for block in blocks] == ["id: e3", "id: e4"]
    data = json.loads(blocks[0].split("data: ")[1])
    assert data == {"type": "chunk", "data": "lo\n\n\r\n", "step": 1}


async def test_a_job_s_id_is_no_path(browser: httpx2.AsyncClient, shim: ScriptedShim) -> None:
    for job in ("..%2F..%2Fhealth", "%2E%2E", "x" * 300, "a%3Fb", "a%0Ab"):
        assert (await browser.get(f"/page/turns/{job}")).status_code in (400, 404), job
    assert shim.sent == []


async def test_a_person_decides_once(site: Any, browser: httpx2.AsyncClient) -> None:
    await seed(site, "Something")
    listed = (await site.agent().get("/api/mission-control/tool-requests")).json()["items"]
    path = f"/page/tool-requests/{listed[0]['id']}"
    other = await browser.post(path, json={"user_id": "u2", "status": "approved"})
    assert other.status_code == 404
    answer = await browser.post(path, json={"user_id": "u1", "status": "approved"})
    assert (answer.json()["status"], answer.json()["by"]) == ("approved", "u1")
    again = await browser.post(path, json={"user_id": "u1", "status": "rejected"})
    assert again.status_code == 409


async def test_the_roles_are_those_of_the_workspace(
    make_backend: Callable[..., Any], tmp_path: Path
) -> None:
    souls = tmp_path / "souls"
    souls.mkdir()
    for name in ("writer.md", "not a role.md", "notes.txt"):
        (souls / name).write_text("You write.")
    async with browser_of(make_backend(page=True, workspace=tmp_path)) as client:
        elements = Elements((await client.get("/", params={"role": "editor"})).text)
    options = [attributes for name, attributes in elements.found if name == "option"]
    assert [one["value"] for one in options] == ["default", "writer", "editor"]
    assert [one["value"] for one in options if "selected" in one] == ["editor"]


def test_the_key_is_in_no_repr() -> None:
    config = BackendConfig(agent_jwt_secret="s" * 32, daemon_key=KEY)
    assert KEY not in repr(config)
