"""Lists of the backend: rows that cannot be read, and cursors that lead nowhere."""

import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from structlog.testing import capture_logs

from clasper_worker.errors import BackendProtocolError
from clasper_worker.mission_control import paging
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.client import AgentBackend, MissionControl
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.mission_control.transport import BackendTransport
from tests.unit.turn.conftest import no_lock

Handler = Callable[[httpx2.Request], Any]


def transport(answer: Handler) -> BackendTransport:
    def handle(request: httpx2.Request) -> httpx2.Response:
        found = answer(request)
        if isinstance(found, httpx2.Response):
            return found
        body = found if isinstance(found, bytes) else json.dumps(found).encode()
        return httpx2.Response(200, content=body)

    client = httpx2.AsyncClient(
        base_url="http://backend.test", transport=httpx2.MockTransport(handle)
    )
    return BackendTransport(client, attempts=1)


def agent_of(answer: Handler) -> AgentBackend:
    tokens = AgentTokens("a secret of thirty-two characters")
    return AgentBackend(MissionControl(transport(answer), tokens), AgentIdentity("u1", "writer"))


def internal_of(answer: Handler) -> InternalBackend:
    return InternalBackend(transport(answer), "internal")


# What stands in a row that nobody asked for, and what is left of it.
BAD_ROWS: list[Any] = [
    None, 7, "text", [], {}, {"id": None, "title": "t", "content": "c"},
    {"id": "x", "title": None, "content": None}, {"id": "", "title": "t", "content": "c"},
    {"id": ["x"], "title": "t", "content": "c"}, {"id": "\ud83d", "title": "t", "content": "c"},
    {"id": "x", "title": {"a": 1}, "content": {"a": 1}},
]  # fmt: skip
GOOD = {"id": 12, "title": "Good", "content": "Good", "status": None, "actor_type": None}


@pytest.mark.parametrize("bad", BAD_ROWS)
async def test_a_row_that_cannot_be_read_is_left_out_of_every_list_and_logged(bad: Any) -> None:
    agent = agent_of(lambda _: {"items": [bad, GOOD, bad], "next_cursor": ""})
    with capture_logs() as logs:
        (task,) = [task async for task in agent.tasks()]
        (message,) = [message async for message in agent.messages("t1")]
        page = await agent.list_tasks(limit=5, cursor=None)
    assert (task.id, task.title, task.status) == ("12", "Good", "")
    assert (message.id, message.content, message.actor_type) == ("12", "Good", "user")
    assert message.task_id == "t1"
    assert [item["id"] for item in page.items] == [12]
    skipped = [entry for entry in logs if entry["event"] == "backend.row_skipped"]
    assert len(skipped) == 3  # one for each list, not for each row
    assert all(entry["problem"] for entry in skipped)


@pytest.mark.parametrize("bad", [None, 7, "text", []])
async def test_notifications_and_agents_that_are_no_objects_are_left_out(bad: Any) -> None:
    def answer(_: httpx2.Request) -> Any:
        return {"items": [bad, {"user_id": "u1"}]}

    with capture_logs() as logs:
        assert await agent_of(answer).notifications() == ({"user_id": "u1"},)
        assert [item async for item in internal_of(answer).agents()] == [{"user_id": "u1"}]
    assert [entry["event"] for entry in logs] == ["backend.row_skipped"] * 2


async def test_a_list_that_is_null_is_empty() -> None:
    agent = agent_of(lambda _: {"items": None})
    assert [task async for task in agent.tasks()] == []
    assert await agent.notifications() == ()
    assert (
        await internal_of(lambda _: {"deliveries": None}).undelivered(users=1, notifications=1)
        == ()
    )


@pytest.mark.parametrize("end", ["", None])
async def test_an_empty_cursor_is_the_end(end: str | None) -> None:
    asked: list[str] = []

    def answer(request: httpx2.Request) -> Any:
        asked.append(str(request.url))
        return {"items": [GOOD], "next_cursor": end}

    agent = agent_of(answer)
    assert len([task async for task in agent.tasks()]) == 1
    await agent.notifications()
    assert [item async for item in internal_of(answer).agents()] == [GOOD]
    assert len(asked) == 3


def circle(request: httpx2.Request) -> Any:
    """Three pages, the last of which leads to the first one."""
    here = int(request.url.params.get("cursor", "0"))
    row = {"id": f"m{here}", "title": str(here), "content": str(here), "user_id": f"u{here}"}
    return {"items": [row], "next_cursor": str((here + 1) % 3)}


async def test_cursors_that_lead_in_a_circle_end_after_one_round() -> None:
    agent = agent_of(circle)
    messages = [message.id async for message in agent.messages("t1")]
    assert messages == ["m0", "m1", "m2"]
    assert len([task async for task in agent.tasks()]) <= 4
    assert len(await agent.notifications()) <= 4
    assert len([item async for item in internal_of(circle).agents()]) <= 4
    itself = agent_of(lambda _: {"items": [GOOD], "next_cursor": "here"})
    assert [message.id async for message in itself.messages("t1")] == ["12"]


async def test_pages_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paging, "MAX_PAGES", 20)
    asked: list[int] = []

    def answer(_: httpx2.Request) -> Any:
        asked.append(1)
        return {"items": [], "next_cursor": str(len(asked))}

    with pytest.raises(BackendProtocolError, match="more than 20 pages"):
        _ = [task async for task in agent_of(answer).tasks()]
    assert len(asked) == 20


async def test_the_task_that_is_looked_for_is_not_made_again_because_its_row_is_broken() -> None:
    made: list[str] = []

    def answer(request: httpx2.Request) -> Any:
        if request.method == "POST":
            made.append("one")
            return {"id": "t9"}
        return {"items": [{"id": "x", "title": None}, {"id": None, "title": " Launch "}]}

    finder = TaskFinder(no_lock)
    with pytest.raises(BackendProtocolError, match="title looked for"):
        await finder.find_or_create(agent_of(answer), "Launch")
    assert made == []
    assert (await finder.find_or_create(agent_of(answer), "Other")).task.id == "t9"


@pytest.mark.parametrize("status", [200, 201])
async def test_what_an_answer_to_a_post_leaves_out_is_as_it_was_sent(status: int) -> None:
    agent = agent_of(lambda _: httpx2.Response(status, json={"id": 5, "content": None}))
    posted = await agent.post_message(task_id="t1", content="paid", idempotency_key="k")
    assert (posted.id, posted.task_id, posted.content) == ("5", "t1", "paid")
    task = await agent.create_task(title="T", idempotency_key="k")
    assert (task.id, task.title, task.status) == ("5", "T", "in_progress")
    document = await agent.create_document(
        task_id="t1", title="D", content="c", doc_type="plan", idempotency_key="k"
    )
    assert (document.id, document.title, document.doc_type) == ("5", "D", "plan")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"<html>", "not JSON (content type: text/html)"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b'{"items": {}}', "items"),
        (b'{"items": 5}', "items"),
        (b"\xff\xfe\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"items": [], "next_cursor": {}}', "next_cursor"),
        (b'{"items": [], "next_cursor": "' + b"x" * 5_000 + b'"}', "next_cursor has more than"),
    ],
)
async def test_an_answer_of_another_type_is_told_as_what_it_is(body: bytes, problem: str) -> None:
    agent = agent_of(
        lambda _: httpx2.Response(200, content=body, headers={"Content-Type": "text/html"})
    )
    with pytest.raises(BackendProtocolError) as caught:
        _ = [task async for task in agent.tasks()]
    assert problem in str(caught.value)


async def test_a_byte_order_mark_and_half_an_emoji_are_read() -> None:
    text = '\ufeff{"items": [{"id": "1", "content": "half \\ud83d"}]}'
    for encoding in ("utf-8", "utf-16-le"):
        agent = agent_of(lambda _, encoding=encoding: text.encode(encoding))  # type: ignore[misc]
        (message,) = [message async for message in agent.messages("t1")]
        assert message.content == "half \ufffd"


def by_path(**answers: Any) -> Handler:
    def answer(request: httpx2.Request) -> Any:
        where = "there" if request.url.path == "/api/capabilities" else "here"
        kind = "agent" if "X-Agent-Token" in request.headers else "internal"
        found = answers.get(f"{where}_{kind}", answers.get(where, 404))
        return httpx2.Response(found) if isinstance(found, int) else found

    return answer


OFFERS: Any = {"contract_version": "1.1.0", "features": {"notifications_dispatch": True}}


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (by_path(here=OFFERS), True),
        (by_path(there=OFFERS), True),
        (by_path(here_internal=401, here_agent=OFFERS), True),
        (by_path(here_internal=403, here_agent=OFFERS), True),
        (by_path(here_internal=401, there_agent=OFFERS), True),
        (by_path(here=401), None),
        (by_path(), None),
        (by_path(here={"features": {}}), False),
        (by_path(here={"features": None, "features_list": ["notifications_dispatch"]}), True),
        (by_path(here={"features": {"notifications_dispatch": False},
                       "features_list": ["notifications_dispatch"]}), False),
    ],
)  # fmt: skip
async def test_the_dispatcher_asks_with_either_token_and_at_either_place(
    answer: Handler, expected: bool | None
) -> None:
    tokens = AgentTokens("a secret of thirty-two characters")
    identity = AgentIdentity("u1", "writer")
    backend = InternalBackend(
        transport(answer),
        "internal",
        agent=lambda: {"X-Agent-Token": tokens.token_for(identity)},
    )
    assert await backend.has("notifications_dispatch") is expected


@pytest.mark.parametrize("answer", [by_path(), by_path(here=403), by_path(here={"features": 5})])
async def test_a_backend_that_does_not_say_is_taken_to_have_what_is_required(
    answer: Handler,
) -> None:
    assert await agent_of(answer).offered() == {"tasks", "messages", "documents"}


async def test_what_is_offered_may_be_named_as_a_list_of_names_or_paths() -> None:
    listed = ["/api/tools", "notifications", "x", 7]
    offered = await agent_of(by_path(here={"features_list": listed})).offered()
    assert {"tools", "notifications", "tasks"} <= offered
    assert "notifications" not in await agent_of(by_path(here={"features": {}})).offered()
    off = {"features": {"documents": False, "tasks": True}}
    assert "documents" not in await agent_of(by_path(here=off)).offered()
