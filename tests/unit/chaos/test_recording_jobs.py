"""What the recording backend has for jobs."""

import time
from typing import Any

import httpx2
import jwt
import pytest

from tests.chaos.recording_backend import RecordingBackend
from tests.chaos.recording_jobs import DELIVER, INTERNAL_HEADER
from tests.chaos.script import find_token, message_for

BASE = "/w/w7/api/mission-control"
INTERNAL = {INTERNAL_HEADER: "t"}
SECRET = "a-secret-of-at-least-32-characters"


@pytest.fixture
async def backend(start: Any) -> Any:
    return await start(RecordingBackend())


async def post(backend: Any, path: str, **body: Any) -> httpx2.Response:
    answer: httpx2.Response = await backend.client.post(
        f"{BASE}/{path}", json=body, headers=INTERNAL
    )
    return answer


async def notify(backend: Any, user: str, token: str) -> str:
    answer = await post(backend, "notifications", user_id=user, content=message_for(token))
    return str(answer.json()["id"])


async def listed(backend: Any, users: int = 25, each: int = 25) -> list[str]:
    query = {"limit_users": users, "limit_notifications": each}
    answer = await backend.client.get(
        f"{BASE}/dispatch/undelivered", params=query, headers=INTERNAL
    )
    return [item["notification_id"] for item in answer.json()["deliveries"]]


async def deliver(backend: Any, named: str, user: str = "u1") -> int:
    path = f"dispatch/notifications/{named}/deliver?user_id={user}"
    return (await post(backend, path)).status_code


async def acks(backend: Any) -> list[tuple[str, str]]:
    return [(ack["token"], ack["outcome"]) for ack in (await backend.records())["acks"]]


async def test_notifications_are_listed_until_they_are_acknowledged(backend: Any) -> None:
    first = await notify(backend, "u1", "s001.00")
    second = await notify(backend, "u1", "s001.01")
    other = await notify(backend, "u2", "s002.00")
    assert await listed(backend) == [first, second, other]
    assert await listed(backend, each=1) == [first, other]
    assert await listed(backend, users=1) == [first, second]
    assert [await deliver(backend, first) for _ in range(2)] == [200, 200]
    assert await listed(backend) == [second, other]
    assert await acks(backend) == [("s001.00", "stored"), ("s001.00", "repeated")]
    assert backend.server._recorder.counts()["undelivered"] == 2


async def test_a_notification_of_another_user_is_not_acknowledged(backend: Any) -> None:
    named = await notify(backend, "u1", "s001.00")
    await deliver(backend, named, "u2")
    assert await listed(backend) == [named]


@pytest.mark.parametrize(("stored", "left"), [(0.0, 1), (1.0, 0)])
async def test_an_acknowledgement_fails_before_or_after_it_is_stored(
    backend: Any, stored: float, left: int
) -> None:
    named = await notify(backend, "u1", "s001.00")
    await backend.behave("error", only=DELIVER, stored=stored)
    assert await deliver(backend, named) == 500
    assert len(await listed(backend)) == left
    assert await acks(backend) == [("s001.00", "stored" if stored else "refused")]


async def test_polls_are_no_calls_by_which_anything_moves(backend: Any) -> None:
    before = (await backend.control.get("/counts")).json()["calls"]
    await listed(backend)
    assert (await backend.control.get("/counts")).json()["calls"] == before


async def test_an_agent_is_listed_and_told_the_slot_of_its_heartbeat(backend: Any) -> None:
    mine = {"user_id": "a3", "agent_role": "keeper"}
    await post(backend, "agents", **mine, number=3, interval=1e6, place=0.25)
    answer = await backend.client.get(f"{BASE}/agents", headers=INTERNAL)
    assert answer.json()["items"] == [mine]
    token = jwt.encode({"type": "agent", "user_id": "a3"}, SECRET)
    headers = {"X-Agent-Token": token}
    beat = await backend.client.post(f"{BASE}/heartbeat", json={}, headers=headers)
    slot = int(time.time() / 1e6 - 0.25)
    assert find_token(beat.text) == f"h3.{slot}"
    (task,) = (await backend.client.get(f"{BASE}/tasks", headers=headers)).json()["items"]
    assert (find_token(task["title"]), task["status"]) == ("d3.00", "done")
    (post_of_it,) = (await backend.records())["posts"]
    assert (post_of_it["kind"], post_of_it["token"]) == ("heartbeat", f"h3.{slot}")
