"""The recording backend: the contract's idempotency, its faults, and what it remembers."""

import asyncio
from typing import Any

import httpx2
import jwt
import pytest

from tests.chaos.recording_backend import MESSAGE_RECEIVED, MESSAGE_STORED, RecordingBackend
from tests.chaos.script import reply_for

BASE = "/w/w7/api/mission-control"
SECRET = "a-secret-of-at-least-32-characters"
TOKEN = "s001.02"


@pytest.fixture
async def backend(start: Any) -> Any:
    return await start(RecordingBackend())


def agent(user: str = "u1") -> dict[str, str]:
    return {"X-Agent-Token": jwt.encode({"type": "agent", "user_id": user}, SECRET)}


async def create(backend: Any, name: str, user: str = "u1", **body: str) -> httpx2.Response:
    return await backend.client.post(f"{BASE}/{name}", json=body, headers=agent(user))


async def a_task(backend: Any) -> str:
    return str((await create(backend, "tasks", title="T", idempotency_key="t")).json()["id"])


def a_message(task_id: str, call: int = 1) -> dict[str, str]:
    return {"task_id": task_id, "content": reply_for(TOKEN, call), "idempotency_key": "m"}


async def outcomes(backend: Any, kind: str = "message") -> list[str]:
    posts = (await backend.records())["posts"]
    return [post["outcome"] for post in posts if post["kind"] == kind]


async def test_the_same_key_and_bytes_give_the_first_answer_again(backend: Any) -> None:
    message = a_message(await a_task(backend))
    first, again = [await create(backend, "messages", **message) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert await outcomes(backend) == ["stored", "replayed"]


async def test_the_same_key_with_other_bytes_is_a_conflict(backend: Any) -> None:
    task = await a_task(backend)
    await create(backend, "messages", **a_message(task))
    assert (await create(backend, "messages", **a_message(task, call=2))).status_code == 409
    assert await outcomes(backend) == ["stored", "conflict"]


async def test_keys_and_threads_are_scoped_to_the_user(backend: Any) -> None:
    task = await a_task(backend)
    await create(backend, "messages", **a_message(task))
    assert (await create(backend, "messages", "u2", **a_message(task))).status_code == 404
    answer = await backend.client.get(f"{BASE}/tasks", headers=agent("u2"))
    assert answer.json()["items"] == []


async def test_the_history_is_read_page_by_page(backend: Any) -> None:
    task = await a_task(backend)
    for number in range(3):
        message = {**a_message(task, number), "idempotency_key": f"m{number}"}
        await create(backend, "messages", **message)
    query = {"task_id": task, "limit": 2}
    first = await backend.client.get(f"{BASE}/messages", params=query, headers=agent())
    query["cursor"] = first.json()["next_cursor"]
    second = await backend.client.get(f"{BASE}/messages", params=query, headers=agent())
    assert [len(page.json()["items"]) for page in (first, second)] == [2, 1]
    assert "next_cursor" not in second.json()


async def test_calls_without_an_agent_token_are_refused(backend: Any) -> None:
    assert (await backend.client.get(f"{BASE}/tasks")).status_code == 401


@pytest.mark.parametrize(
    ("point", "stored"), [(MESSAGE_RECEIVED, []), (MESSAGE_STORED, ["stored"])]
)
async def test_a_caller_that_dies_at_a_point_leaves_what_was_stored_by_then(
    backend: Any, point: str, stored: list[str]
) -> None:
    task = await a_task(backend)
    await backend.arm(point)
    call = asyncio.create_task(create(backend, "messages", **a_message(task)))
    assert (await backend.sprung())["token"] == TOKEN
    call.cancel()
    await asyncio.wait([call])
    async with asyncio.timeout(30):  # until the server has seen the connection's end
        while backend.server.open_calls:  # noqa: ASYNC110 - an integer has no event
            await asyncio.sleep(0.01)
    await backend.control.post("/release")
    assert await outcomes(backend) == stored


async def test_an_answer_that_is_reset_was_stored(backend: Any) -> None:
    message = a_message(await a_task(backend))
    await backend.behave("reset")
    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        await create(backend, "messages", **message)
    await backend.behave()
    assert (await create(backend, "messages", **message)).status_code == 200
    assert await outcomes(backend) == ["stored", "replayed"]


@pytest.mark.parametrize(("kind", "status"), [("error", 500), ("rate_limit", 429)])
async def test_a_refused_post_is_remembered_and_not_stored(
    backend: Any, kind: str, status: int
) -> None:
    message = a_message(await a_task(backend))
    await backend.behave(kind, seconds=1)
    assert (await create(backend, "messages", **message)).status_code == status
    assert await outcomes(backend) == ["refused"]
