from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

TASKS = "/api/mission-control/tasks"
MESSAGES = "/api/mission-control/messages"
REPLAYED = "Idempotent-Replayed"


async def titles(client: httpx2.AsyncClient) -> list[str]:
    return [
        item["title"] for item in (await client.get(TASKS, params={"limit": 100})).json()["items"]
    ]


async def test_a_repetition_gets_the_original_answer(agent: httpx2.AsyncClient) -> None:
    """Byte for byte, marked as such, and without a second effect."""
    body = {"title": "t", "idempotency_key": "u1:k"}
    first = await agent.post(TASKS, json=body)
    again = await agent.post(TASKS, json=body)
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert (REPLAYED in first.headers, again.headers[REPLAYED]) == (False, "true")
    assert await titles(agent) == ["t"]


async def test_the_original_answer_outlives_changes(agent: httpx2.AsyncClient) -> None:
    """It says what was answered then, not what is now."""
    body = {"title": "t", "idempotency_key": "u1:k"}
    first = await agent.post(TASKS, json=body)
    await agent.patch(f"{TASKS}/{first.json()['id']}", json={"title": "changed"})
    assert (await agent.post(TASKS, json=body)).content == first.content


@pytest.mark.parametrize(
    "other",
    [
        {"title": "other"},
        {"title": "t "},
        {"title": "t", "status": "in_progress"},
        {"title": "t", "unknown": 1},
        {"title": "t", "metadata": {"a": [1, 2]}},
    ],
)
async def test_another_request_under_the_key_is_a_conflict(
    agent: httpx2.AsyncClient, other: dict[str, Any]
) -> None:
    """409, even if only a default or an unknown field differs."""
    await agent.post(TASKS, json={"title": "t", "idempotency_key": "u1:k"})
    answer = await agent.post(TASKS, json={**other, "idempotency_key": "u1:k"})
    assert answer.status_code == 409
    assert answer.json()["code"] == "idempotency_conflict"
    assert await titles(agent) == ["t"]


async def test_the_order_of_fields_makes_no_difference(agent: httpx2.AsyncClient) -> None:
    """Nor does white space: it is the same JSON."""
    headers = {"Content-Type": "application/json"}
    bodies = [
        b'{"title":"t","metadata":{"a":1,"b":"\xc3\xbc"},"idempotency_key":"u1:k"}',
        b'{ "idempotency_key": "u1:k", "metadata": {"b": "\\u00fc", "a": 1}, "title": "t" }',
    ]
    first, second = [await agent.post(TASKS, content=body, headers=headers) for body in bodies]
    assert second.content == first.content
    assert second.status_code == 200


async def test_a_key_belongs_to_one_endpoint(agent: httpx2.AsyncClient) -> None:
    """The same body elsewhere is another request."""
    body = {"user_id": "u1", "title": "t", "idempotency_key": "u1:k"}
    assert (await agent.post(TASKS, json=body)).status_code == 200
    assert (await agent.post("/api/mission-control/heartbeat", json=body)).status_code == 409
    assert (await agent.post("/api/mission-control/standup", json=body)).status_code == 409


async def test_a_key_belongs_to_one_tool(agent: httpx2.AsyncClient, task_id: str) -> None:
    """Tools differ by their path, not by their body."""
    arguments = {"task_id": task_id, "status": "done"}
    body = {"arguments": arguments, "idempotency_key": "u1:k"}
    assert (await agent.post("/api/tools/set_task_status", json=body)).status_code == 200
    body = {"arguments": {}, "idempotency_key": "u1:k"}
    assert (await agent.post("/api/tools/count_tasks_by_status", json=body)).status_code == 409


async def test_keys_are_scoped_to_the_tenant(backend: Any) -> None:
    """Two users may use the same key, for whatever they like."""
    for user_id in ("u1", "u2"):
        body = {"title": f"of {user_id}", "idempotency_key": "k"}
        answer = await backend.agent(user_id).post(TASKS, json=body)
        assert answer.status_code == 200
        assert REPLAYED not in answer.headers
        assert await titles(backend.agent(user_id)) == [f"of {user_id}"]


async def test_keys_are_not_scoped_to_the_role(backend: Any) -> None:
    """A tenant's agents share the tenant's keys."""
    body = {"title": "t", "idempotency_key": "u1:k"}
    await backend.agent(role="writer").post(TASKS, json=body)
    assert REPLAYED in (await backend.agent(role="lead").post(TASKS, json=body)).headers


async def test_the_internal_token_uses_the_keys_of_whom_it_acts_for(
    backend: Any, internal: httpx2.AsyncClient
) -> None:
    """A notification's key is its user's."""
    path = "/api/mission-control/notifications"
    for user_id in ("u1", "u2"):
        body = {"content": "x", "user_id": user_id, "idempotency_key": "k"}
        assert REPLAYED not in (await internal.post(path, json=body)).headers
        assert REPLAYED in (await internal.post(path, json=body)).headers
        assert len((await backend.agent(user_id).get(path)).json()["items"]) == 1


async def test_without_a_key_every_request_counts(agent: httpx2.AsyncClient) -> None:
    """The key is optional."""
    for _ in range(2):
        await agent.post(TASKS, json={"title": "t"})
    assert await titles(agent) == ["t", "t"]


async def test_every_create_endpoint_has_one_effect_for_each_key(
    agent: httpx2.AsyncClient, task_id: str
) -> None:
    """Messages, documents, notifications and tool requests alike."""
    bodies: dict[str, dict[str, Any]] = {
        "messages": {
            "task_id": task_id,
            "content": "x",
            "actor_type": "agent",
            "agent_role": "writer",
        },
        "documents": {"task_id": task_id, "title": "x", "content": "x"},
        "notifications": {"content": "x"},
        "tool-requests": {"tool": "x"},
    }
    for name, body in bodies.items():
        path = f"/api/mission-control/{name}"
        keyed = {**body, "idempotency_key": f"u1:{name}"}
        answers = [await agent.post(path, json=keyed) for _ in range(3)]
        assert {answer.content for answer in answers} == {answers[0].content}
        assert answers[0].status_code == 200
        assert len((await agent.get(path)).json()["items"]) == 1, name


async def test_keys_outlive_the_process(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    """A retry may come after a restart."""
    body = {"title": "t", "idempotency_key": "u1:k"}
    before = make_backend(database=str(tmp_path / "b.db"))
    first = await before.agent().post(TASKS, json=body)
    await before.close()
    after = make_backend(database=str(tmp_path / "b.db")).agent()
    assert (await after.post(TASKS, json=body)).content == first.content
    assert await titles(after) == ["t"]


async def test_of_many_at_once_one_has_the_effect(agent: httpx2.AsyncClient) -> None:
    """All get the same answer."""
    body = {"title": "t", "idempotency_key": "u1:k"}
    answers = await asyncio.gather(*(agent.post(TASKS, json=body) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum(REPLAYED not in answer.headers for answer in answers) == 1
    assert await titles(agent) == ["t"]


def _in_threads(number: int, work: Callable[[int], Any]) -> list[Any]:
    """Run the coroutine functions at the same time, each in a thread with its own event loop."""
    together = threading.Barrier(number)

    def run(index: int) -> Any:
        together.wait(60)
        return asyncio.run(work(index))

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(run, range(number)))


@pytest.mark.parametrize("databases", [1, 4], ids=["one app", "four apps on one file"])
def test_threads_and_processes_see_one_effect(
    make_harness: Callable[..., Any], tmp_path: Path, databases: int
) -> None:
    """Several event loops on one app, and several apps (as if processes) on one file.

    Every thread repeats the same ten requests; each has one effect and one answer.
    """
    path = str(tmp_path / "b.db")
    harnesses = [make_harness(database=path) for _ in range(databases)]

    async def work(index: int) -> list[bytes]:
        harness = harnesses[index % databases]
        async with harness.agent() as client:
            answers = [
                await client.post(TASKS, json={"title": f"t{n}", "idempotency_key": f"u1:{n}"})
                for n in range(10)
            ]
        assert {answer.status_code for answer in answers} == {200}
        return [answer.content for answer in answers]

    results = _in_threads(8, work)
    assert all(result == results[0] for result in results)

    async def look() -> list[str]:
        async with harnesses[0].agent() as client:
            return await titles(client)

    assert sorted(asyncio.run(look())) == [f"t{n}" for n in range(10)]
    assert len({json.loads(body)["id"] for body in results[0]}) == 10


def test_of_different_requests_under_one_key_one_wins(
    make_harness: Callable[..., Any], tmp_path: Path
) -> None:
    """The others are conflicts, whoever comes first."""
    harness = make_harness(database=str(tmp_path / "b.db"))

    async def work(index: int) -> int:
        async with harness.agent() as client:
            body = {"title": f"t{index}", "idempotency_key": "u1:k"}
            return (await client.post(TASKS, json=body)).status_code

    assert sorted(_in_threads(6, work)) == [200, 409, 409, 409, 409, 409]
