from __future__ import annotations

from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import Message, Page

PATH = "/api/mission-control/messages"


def message(task_id: str, **more: Any) -> dict[str, Any]:
    return {
        "task_id": task_id,
        "content": "Hello",
        "actor_type": "agent",
        "agent_role": "writer",
        **more,
    }


async def test_posts_a_message(agent: httpx2.AsyncClient, task_id: str) -> None:
    """The answer has at least id, task_id and content."""
    extra = {"actor_id": "a7", "attachments": [{"url": "x"}, "y", None]}
    answer = await agent.post(PATH, json=message(task_id, **extra))
    assert answer.status_code == 200
    found = Message.model_validate(answer.json())
    assert (found.task_id, found.content) == (task_id, "Hello")
    assert found.attachments == extra["attachments"]


async def test_lists_a_tasks_messages_oldest_first(agent: httpx2.AsyncClient, task_id: str) -> None:
    """Those of the task alone, page by page."""
    other = (await agent.post("/api/mission-control/tasks", json={"title": "Other"})).json()["id"]
    for number in range(3):
        await agent.post(PATH, json=message(task_id, content=f"m{number}"))
        await agent.post(PATH, json=message(other, content=f"o{number}"))
    first = (await agent.get(PATH, params={"task_id": task_id, "limit": 2})).json()
    rest = await agent.get(PATH, params={"task_id": task_id, "cursor": first["next_cursor"]})
    items = first["items"] + Page[Message].model_validate(rest.json()).model_dump()["items"]
    assert [item["content"] for item in items] == ["m0", "m1", "m2"]


async def test_lists_all_messages_without_a_task(agent: httpx2.AsyncClient, task_id: str) -> None:
    """For somebody who wants to see everything."""
    other = (await agent.post("/api/mission-control/tasks", json={"title": "Other"})).json()["id"]
    await agent.post(PATH, json=message(task_id))
    await agent.post(PATH, json=message(other))
    found = (await agent.get(PATH)).json()["items"]
    assert [item["task_id"] for item in found] == [task_id, other]


@pytest.mark.parametrize("role", ["user", "system", "agent"])
async def test_keeps_who_spoke(agent: httpx2.AsyncClient, task_id: str, role: str) -> None:
    """The backend keeps the whole conversation, people's part included."""
    made = (await agent.post(PATH, json=message(task_id, actor_type=role))).json()
    assert made["actor_type"] == role


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"content": ""}, "content"),
        ({"content": " "}, "content"),
        ({"content": None}, "content"),
        ({"actor_type": "robot"}, "actor_type"),
        ({"agent_role": "../etc"}, "agent_role"),
        ({"agent_role": "writer\n"}, "agent_role"),
        ({"task_id": None}, "task_id"),
        ({"attachments": {}}, "attachments"),
    ],
)
async def test_refuses_bad_messages(
    agent: httpx2.AsyncClient, task_id: str, change: dict[str, Any], field: str
) -> None:
    """400 names the field; an empty message is never posted."""
    answer = await agent.post(PATH, json={**message(task_id), **change})
    assert answer.status_code == 400
    assert [item["field"] for item in answer.json()["details"]["fields"]] == [field]
    assert (await agent.get(PATH)).json() == {"items": []}


async def test_there_is_no_message_without_its_task(agent: httpx2.AsyncClient) -> None:
    """404, to post and to list."""
    assert (await agent.post(PATH, json=message("nope"))).status_code == 404
    assert (await agent.get(PATH, params={"task_id": "nope"})).status_code == 404


async def test_a_refused_message_leaves_its_key_free(
    agent: httpx2.AsyncClient, task_id: str
) -> None:
    """What had no effect is not remembered."""
    key = {"idempotency_key": "u1:k"}
    assert (await agent.post(PATH, json=message("nope", **key))).status_code == 404
    assert (await agent.post(PATH, json=message(task_id, **key))).status_code == 200


async def test_another_users_task_is_not_there(backend: Any, task_id: str) -> None:
    """Neither to post in, nor to read."""
    other = backend.agent("u2")
    assert (await other.post(PATH, json=message(task_id))).status_code == 404
    assert (await other.get(PATH, params={"task_id": task_id})).status_code == 404
    assert (await other.get(PATH)).json() == {"items": []}


@pytest.mark.parametrize("left_out", [{}, {"actor_type": None, "agent_role": None}])
async def test_a_message_need_not_say_who_posts_it(
    agent: httpx2.AsyncClient, task_id: str, left_out: dict[str, None]
) -> None:
    """The token says it."""
    answer = await agent.post(PATH, json={"task_id": task_id, "content": "Hi", **left_out})
    assert answer.status_code == 200
    assert (answer.json()["actor_type"], answer.json()["agent_role"]) == ("agent", "writer")
