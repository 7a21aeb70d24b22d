from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

TASKS = "/api/mission-control/tasks"
EVENTS = "/api/mission-control/events"


async def add(client: httpx2.AsyncClient, *titles: str) -> None:
    for title in titles:
        assert (await client.post(TASKS, json={"title": title})).status_code == 200


async def test_a_stream_begins_now(backend: Any, agent: httpx2.AsyncClient) -> None:
    """What was before is not repeated; `ready` has the id to resume from."""
    await add(agent, "before")
    async with backend.events() as stream:
        ready = await stream.next()
        assert (stream.status, ready.event, ready.id) == (200, "ready", "1")
        await add(agent, "after")
        event = await stream.next()
        assert (event.id, event.event, event.data["action"]) == ("2", "task", "created")
        assert event.data["item"]["title"] == "after"


async def test_everything_that_happens_is_told(backend: Any, agent: httpx2.AsyncClient) -> None:
    """In order, each with the item as the API shows it."""
    control = "/api/mission-control"
    async with backend.events() as stream:
        await stream.next()
        task = (await agent.post(TASKS, json={"title": "t"})).json()
        message = {
            "task_id": task["id"],
            "content": "x",
            "actor_type": "agent",
            "agent_role": "writer",
        }
        expected = [("task", "created", task)]
        for kind, path, body in [
            ("message", "messages", message),
            ("document", "documents", {"task_id": task["id"], "title": "x", "content": "x"}),
            ("notification", "notifications", {"content": "x"}),
            ("tool_request", "tool-requests", {"tool": "x"}),
        ]:
            made = (await agent.post(f"{control}/{path}", json=body)).json()
            expected.append((kind, "created", made))
        for kind, path, body in [
            ("task", f"tasks/{task['id']}", {"status": "done"}),
            ("tool_request", f"tool-requests/{made['id']}", {"status": "approved"}),
        ]:
            changed = (await agent.patch(f"{control}/{path}", json=body)).json()
            expected.append((kind, "updated", changed))
        found = [await stream.next() for _ in expected]
    assert [(e.event, e.data["action"], e.data["item"]) for e in found] == expected
    assert [e.data["type"] for e in found] == [e.event for e in found]
    assert [int(e.id) for e in found] == list(range(1, len(found) + 1))


async def test_a_delivery_is_told(
    backend: Any, agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """Once, however often it is acknowledged."""
    path = "/api/mission-control/notifications"
    made = (await agent.post(path, json={"content": "x"})).json()["id"]
    async with backend.events() as stream:
        await stream.next()
        for _ in range(2):
            await internal.post(
                f"/api/mission-control/dispatch/notifications/{made}/deliver?user_id=u1"
            )
        await add(agent, "end")
        events = [await stream.next(), await stream.next()]
    assert [event.event for event in events] == ["notification", "task"]
    assert "delivered_at" in events[0].data["item"]


async def test_a_tenant_hears_of_its_own_things_only(backend: Any) -> None:
    """Never across tenants."""
    async with backend.events("u1") as first, backend.events("u2") as second:
        assert [(await stream.next()).event for stream in (first, second)] == ["ready", "ready"]
        await add(backend.agent("u2"), "of u2")
        await add(backend.agent("u1"), "of u1")
        assert (await first.next()).data["item"]["title"] == "of u1"
        assert (await second.next()).data["item"]["title"] == "of u2"


async def test_all_streams_of_a_tenant_hear(backend: Any, agent: httpx2.AsyncClient) -> None:
    """One client's reading takes nothing from another's."""
    async with backend.events() as first, backend.events() as second:
        await first.next()
        await second.next()
        await add(agent, "a")
        assert await first.next() == await second.next()


async def test_a_stream_resumes_after_the_last_event(
    backend: Any, agent: httpx2.AsyncClient
) -> None:
    """By header or, where none can be set, by `after`; nothing is lost or repeated."""
    async with backend.events() as stream:
        await stream.next()
        await add(agent, "a", "b")
        seen = await stream.next()
    await add(agent, "c")
    for how in ({"last": seen.id}, {"query": f"after={seen.id}"}):
        async with backend.events(**how) as stream:
            assert (await stream.next()).event == "ready"
            titles = [(await stream.next()).data["item"]["title"] for _ in range(2)]
            assert titles == ["b", "c"]


async def test_a_client_that_saw_ready_alone_loses_nothing(
    backend: Any, agent: httpx2.AsyncClient
) -> None:
    """That is what the id of `ready` is for."""
    async with backend.events() as stream:
        ready = await stream.next()
    await add(agent, "while away")
    async with backend.events(last=ready.id) as stream:
        await stream.next()
        assert (await stream.next()).data["item"]["title"] == "while away"


async def test_many_missed_events_all_come(backend: Any, agent: httpx2.AsyncClient) -> None:
    """More than are read at a time."""
    await add(agent, *(str(number) for number in range(450)))
    async with backend.events(last="0") as stream:
        await stream.next()
        titles = [(await stream.next()).data["item"]["title"] for _ in range(450)]
    assert titles == [str(number) for number in range(450)]


async def test_a_gap_is_admitted(make_backend: Callable[..., Any]) -> None:
    """Who was away for longer than events are kept must read the lists anew."""
    backend = make_backend(events_kept=5)
    await add(backend.agent(), *(str(number) for number in range(600)))
    async with backend.events(last="1") as stream:
        assert (await stream.next()).event == "reset"
        assert int((await stream.next()).id) > 2
    async with backend.events(last="599") as stream:
        assert (await stream.next()).event == "ready"
        assert (await stream.next()).id == "600"


async def test_an_id_of_another_database_is_a_gap(backend: Any, agent: httpx2.AsyncClient) -> None:
    """The backend was started anew, with a new database."""
    await add(agent, "a")
    async with backend.events(last="77") as stream:
        first = await stream.next()
        assert (first.event, first.id) == ("reset", "1")
        await add(agent, "b")
        assert (await stream.next()).id == "2"


@pytest.mark.parametrize("last", ["x", "-1", "1.5", "٣", "9" * 20, " "])
async def test_refuses_ids_that_no_stream_sent(agent: httpx2.AsyncClient, last: str) -> None:
    """400 before the stream begins."""
    answer = await agent.get(EVENTS, params={"after": last})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "Last-Event-ID"


async def test_an_idle_stream_is_kept_alive_by_comments(make_backend: Callable[..., Any]) -> None:
    """Not by events: nothing has happened."""
    backend = make_backend(keepalive_seconds=0.01)
    async with backend.events() as stream:
        await stream.next()
        await stream.comment()
        await add(backend.agent(), "a")
        event = await stream.next()
        assert (event.id, event.event) == ("1", "task")
        assert stream.comments > 0


async def test_a_stream_ends_with_its_token(
    backend: Any, make_backend: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The client comes back with a new one, and resumes."""
    soon = time.time() + 3600
    stream = backend.events(exp=soon)
    monkeypatch.setattr(time, "time", lambda: soon - 0.05)
    async with stream as opened:
        assert (await opened.next()).event == "ready"
        await opened.ended()


async def test_a_closed_stream_is_forgotten(backend: Any, agent: httpx2.AsyncClient) -> None:
    """Clients come and go; what they leave behind must not pile up."""
    wakeups = backend.app.state.backend.wakeups
    async with backend.events() as stream:
        await stream.next()
        assert len(wakeups._sleepers["u1"]) == 1
    assert dict(wakeups._sleepers) == {}
    await add(agent, "a")


async def test_needs_an_agents_token(backend: Any, internal: httpx2.AsyncClient) -> None:
    """401 for anybody else."""
    assert (await backend.client().get(EVENTS)).status_code == 401
    assert (await internal.get(EVENTS)).status_code == 401


async def test_events_carry_text_in_any_script(backend: Any, agent: httpx2.AsyncClient) -> None:
    """Line breaks and all that SSE gives a meaning to."""
    title = "Ж\r\n\n: id: 7\ndata: x 🚀\u2028"
    async with backend.events() as stream:
        await stream.next()
        await add(agent, title)
        assert (await stream.next()).data["item"]["title"] == title
