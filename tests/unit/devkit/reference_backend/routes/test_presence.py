from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import Heartbeat, Standup
from clasper_worker.devkit.reference_backend.routes import presence

AGENTS = "/api/mission-control/agents"
HEARTBEAT = "/api/mission-control/heartbeat"
STANDUP = "/api/mission-control/standup"
TASKS = "/api/mission-control/tasks"


class _Clock(datetime):
    moment = datetime(2026, 3, 1, 23, 30, tzinfo=UTC)

    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return cls.moment.astimezone(tz)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> type[_Clock]:
    """Half past eleven in the evening, UTC, of 2026-03-01."""
    monkeypatch.setattr(presence, "datetime", _Clock)
    monkeypatch.setattr(_Clock, "moment", _Clock.moment)
    return _Clock


async def test_a_heartbeat_is_counted_and_told_what_waits(agent: httpx2.AsyncClient) -> None:
    """Open tasks, and notifications that are not delivered yet."""
    for status in ("in_progress", "todo", "done", "cancelled", "waiting for Bob"):
        await agent.post(TASKS, json={"title": status, "status": status})
    await agent.post("/api/mission-control/notifications", json={"content": "Look"})
    await agent.post(HEARTBEAT, json={"user_id": "u1"})
    answer = await agent.post(HEARTBEAT, json={"user_id": "u1"})
    assert answer.status_code == 200
    found = Heartbeat.model_validate(answer.json())
    assert (found.heartbeats, found.agent_role, found.open_tasks) == (2, "writer", 3)
    assert found.tasks_by_status["waiting for Bob"] == 1
    assert [item.content for item in found.undelivered_notifications] == ["Look"]


async def test_heartbeats_are_counted_for_each_agent(backend: Any) -> None:
    """By user and role."""
    for user_id, role in (("u1", "writer"), ("u1", "lead"), ("u2", "writer")):
        answer = await backend.agent(user_id, role).post(HEARTBEAT, json={"user_id": user_id})
        assert answer.json()["heartbeats"] == 1


async def test_a_repeated_heartbeat_is_counted_once(agent: httpx2.AsyncClient) -> None:
    """A retry under its key is not another heartbeat."""
    body = {"user_id": "u1", "idempotency_key": "u1:beat:1"}
    first = await agent.post(HEARTBEAT, json=body)
    assert (await agent.post(HEARTBEAT, json=body)).content == first.content
    assert (await agent.post(HEARTBEAT, json={"user_id": "u1"})).json()["heartbeats"] == 2


@pytest.mark.parametrize("path", [HEARTBEAT, STANDUP])
async def test_an_agent_acts_for_its_own_user(agent: httpx2.AsyncClient, path: str) -> None:
    """403 for another user, 400 for none."""
    assert (await agent.post(path, json={"user_id": "u2"})).status_code == 403
    assert (await agent.post(path, json={})).status_code == 400


async def test_a_standup_tells_the_tasks_and_is_kept(
    agent: httpx2.AsyncClient, clock: type[_Clock]
) -> None:
    """As a document of type `standup`."""
    for title, status in (("A", "in_progress"), ("B", "done"), ("C", "in_progress")):
        await agent.post(TASKS, json={"title": title, "status": status})
    answer = await agent.post(STANDUP, json={"user_id": "u1", "timezone": "UTC"})
    assert answer.status_code == 200
    found = Standup.model_validate(answer.json())
    assert found.created
    assert found.summary == "Standup 2026-03-01: 3 tasks.\ndone (1): B\nin_progress (2): A; C"
    (document,) = (await agent.get("/api/mission-control/documents")).json()["items"]
    assert document["id"] == found.document_id
    assert (document["doc_type"], document["title"]) == ("standup", "Standup 2026-03-01")
    assert document["content"] == found.summary


async def test_a_long_standup_is_cut_and_says_so(agent: httpx2.AsyncClient) -> None:
    """Ten titles of each status."""
    for number in range(12):
        await agent.post(TASKS, json={"title": f"t{number}"})
    summary = (await agent.post(STANDUP, json={"user_id": "u1"})).json()["summary"]
    assert summary.endswith(
        "in_progress (12): " + "; ".join(f"t{n}" for n in range(10)) + "; and 2 more"
    )


async def test_there_is_one_standup_a_day(backend: Any, clock: type[_Clock]) -> None:
    """Whoever asks again, of whatever role, gets the day's first."""
    first = (await backend.agent().post(STANDUP, json={"user_id": "u1"})).json()
    await backend.agent().post(TASKS, json={"title": "new"})
    again = (await backend.agent(role="lead").post(STANDUP, json={"user_id": "u1"})).json()
    assert again == {**first, "created": False}
    clock.moment = datetime(2026, 3, 2, 0, 0, tzinfo=UTC)
    next_day = (await backend.agent().post(STANDUP, json={"user_id": "u1"})).json()
    assert (next_day["created"], next_day["day"]) == (True, "2026-03-02")
    assert next_day["document_id"] != first["document_id"]


@pytest.mark.parametrize(
    ("timezone", "day"),
    [
        ("UTC", "2026-03-01"),
        ("Europe/Berlin", "2026-03-02"),
        ("Pacific/Kiritimati", "2026-03-02"),
        ("America/New_York", "2026-03-01"),
    ],
)
async def test_the_day_is_that_of_the_time_zone(
    agent: httpx2.AsyncClient, clock: type[_Clock], timezone: str, day: str
) -> None:
    """Half an hour before midnight in UTC, some are in tomorrow."""
    answer = await agent.post(STANDUP, json={"user_id": "u1", "timezone": timezone})
    assert answer.json()["day"] == day == _Clock.now(ZoneInfo(timezone)).date().isoformat()


@pytest.mark.parametrize("timezone", ["Mars/Base", "", "../etc/passwd", "Europe", "\0", 7])
async def test_refuses_unknown_time_zones(agent: httpx2.AsyncClient, timezone: object) -> None:
    """400 names the field."""
    answer = await agent.post(STANDUP, json={"user_id": "u1", "timezone": timezone})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "timezone"


async def test_standups_of_two_users_are_two(backend: Any) -> None:
    """Each of their own tasks."""
    await backend.agent("u1").post(TASKS, json={"title": "secret plan"})
    other = (await backend.agent("u2").post(STANDUP, json={"user_id": "u2"})).json()
    assert other["created"]
    assert "no tasks" in other["summary"]


async def test_agents_are_registered_and_listed(internal: httpx2.AsyncClient) -> None:
    """Over all users, in the order of their first registration."""
    full = {
        "user_id": "u2",
        "agent_role": "lead",
        "timezone": "Europe/Berlin",
        "active_hours": "08:00-22:00",
    }
    assert (await internal.post(AGENTS, json=full)).status_code == 200
    await internal.post(AGENTS, json={"user_id": "u1", "agent_role": "writer"})
    assert (await internal.get(AGENTS)).json()["items"] == [
        full,
        {"user_id": "u1", "agent_role": "writer"},
    ]


async def test_registering_again_replaces(internal: httpx2.AsyncClient) -> None:
    """One entry for each user and role."""
    entry = {"user_id": "u1", "agent_role": "writer"}
    await internal.post(AGENTS, json={**entry, "timezone": "UTC"})
    await internal.post(AGENTS, json={**entry, "active_hours": "22:00-06:00"})
    assert (await internal.get(AGENTS)).json()["items"] == [
        {**entry, "active_hours": "22:00-06:00"}
    ]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"agent_role": "a b"}, "agent_role"),
        ({"user_id": ""}, "user_id"),
        ({"timezone": "Mars"}, "timezone"),
        ({"active_hours": "8-22"}, "active_hours"),
        ({"active_hours": "08:00-25:00"}, "active_hours"),
        ({"active_hours": "24:00-24:00"}, "active_hours"),
        ({"active_hours": "08:00-22:00\n"}, "active_hours"),
    ],
)
async def test_refuses_bad_agents(
    internal: httpx2.AsyncClient, change: dict[str, str], field: str
) -> None:
    """400 names the field."""
    answer = await internal.post(AGENTS, json={"user_id": "u1", "agent_role": "writer", **change})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == field


async def test_agents_do_not_see_who_else_is_there(agent: httpx2.AsyncClient) -> None:
    """The list spans tenants, so it needs the internal token."""
    assert (await agent.get(AGENTS)).status_code == 401
    body = {"user_id": "u1", "agent_role": "writer"}
    assert (await agent.post(AGENTS, json=body)).status_code == 401


@pytest.mark.parametrize("registers", [False, True])
async def test_an_agent_that_posts_is_listed_from_then_on_if_that_was_asked_for(
    make_backend: Any, registers: bool
) -> None:
    """What is known of an agent that was registered stays as it is."""
    backend = make_backend(registers_agents=registers)
    entry = {"user_id": "u1", "agent_role": "writer", "timezone": "Europe/Berlin"}
    await backend.internal().post(AGENTS, json=entry)
    for role in ("writer", "lead", "lead"):
        agent = backend.agent("u1", role)
        task = (await agent.post(TASKS, json={"title": "T"})).json()["id"]
        message = {"task_id": task, "content": "Hi", "actor_type": "agent", "agent_role": role}
        answer = await agent.post("/api/mission-control/messages", json=message)
        answer.raise_for_status()
    listed = (await backend.internal().get(AGENTS)).json()["items"]
    assert listed == [entry, *([{"user_id": "u1", "agent_role": "lead"}] if registers else [])]
