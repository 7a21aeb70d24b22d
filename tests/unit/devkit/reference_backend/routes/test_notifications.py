from __future__ import annotations

from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import (
    Delivered,
    Deliveries,
    Notification,
    Page,
)

PATH = "/api/mission-control/notifications"
UNDELIVERED = "/api/mission-control/dispatch/undelivered"


def deliver(notification_id: str) -> str:
    return f"/api/mission-control/dispatch/notifications/{notification_id}/deliver"


async def notify(client: httpx2.AsyncClient, content: str = "Look", **more: Any) -> str:
    answer = await client.post(PATH, json={"content": content, **more})
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found


async def waiting(internal: httpx2.AsyncClient, **limits: int) -> list[tuple[str, str]]:
    answer = await internal.get(UNDELIVERED, params=limits)
    found = Deliveries.model_validate(answer.json()).deliveries
    return [(item.user_id, item.content) for item in found]


async def test_an_agent_notifies_its_own_user(agent: httpx2.AsyncClient) -> None:
    """`user_id` may be left out, or say the same."""
    await notify(agent, "a")
    await notify(agent, "b", user_id="u1")
    page = Page[Notification].model_validate((await agent.get(PATH)).json())
    assert [(item.content, item.session_key) for item in page.items] == [
        ("a", "user:u1:default"),
        ("b", "user:u1:default"),
    ]


async def test_an_agent_cannot_notify_another_user(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """403, and nothing is stored."""
    answer = await agent.post(PATH, json={"content": "x", "user_id": "u2"})
    assert answer.status_code == 403
    assert answer.json()["code"] == "forbidden"
    assert await waiting(internal) == []


async def test_the_internal_token_notifies_anybody(
    backend: Any, internal: httpx2.AsyncClient
) -> None:
    """And each user sees their own."""
    await notify(internal, "for u2", user_id="u2")
    assert (await backend.agent("u1").get(PATH)).json() == {"items": []}
    assert len((await backend.agent("u2").get(PATH)).json()["items"]) == 1


async def test_the_internal_token_must_say_whom(internal: httpx2.AsyncClient) -> None:
    """It belongs to no tenant."""
    answer = await internal.post(PATH, json={"content": "x"})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "user_id"


async def test_a_delivery_has_everything_for_a_turn(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient, task_id: str
) -> None:
    """Whom, which session, what, and in which task."""
    made = await notify(agent, "Go", agent_role="writer", task_id=task_id, task_title="Plan")
    (delivery,) = (await internal.get(UNDELIVERED)).json()["deliveries"]
    del delivery["created_at"]
    assert delivery == {
        "notification_id": made,
        "user_id": "u1",
        "session_key": "user:u1:writer",
        "content": "Go",
        "agent_role": "writer",
        "task_id": task_id,
        "task_title": "Plan",
    }


async def test_a_session_key_is_taken_as_given(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """Whoever tests their own agent may also test odd keys."""
    await notify(agent, session_key="odd key")
    (delivery,) = (await internal.get(UNDELIVERED)).json()["deliveries"]
    assert delivery["session_key"] == "odd key"


async def test_a_notification_of_an_unknown_task_is_refused(
    backend: Any, internal: httpx2.AsyncClient, task_id: str
) -> None:
    """A task of another user is unknown, too."""
    for user_id, task in (("u1", "nope"), ("u2", task_id)):
        body = {"content": "x", "user_id": user_id, "task_id": task}
        assert (await internal.post(PATH, json=body)).status_code == 404


async def test_post_lists_the_undelivered_as_get_does(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """Some backends only have POST; its limits may stand in the query or in the body."""
    for content in "abc":
        await notify(agent, content)
    by_get = (await internal.get(UNDELIVERED, params={"limit_notifications": 2})).json()
    by_query = await internal.post(UNDELIVERED, params={"limit_notifications": 2})
    by_body = await internal.post(UNDELIVERED, json={"limit_notifications": 2})
    assert len(by_get["deliveries"]) == 2
    assert by_query.json() == by_get
    assert by_body.json() == by_get
    assert len((await internal.post(UNDELIVERED)).json()["deliveries"]) == 3


async def test_limits_are_for_users_and_for_each_of_them(internal: httpx2.AsyncClient) -> None:
    """The users who wait longest come first, with their oldest first."""
    for user_id, content in [("u1", "a"), ("u2", "b"), ("u1", "c"), ("u3", "d"), ("u2", "e")]:
        await notify(internal, content, user_id=user_id)
    assert await waiting(internal) == [
        ("u1", "a"),
        ("u1", "c"),
        ("u2", "b"),
        ("u2", "e"),
        ("u3", "d"),
    ]
    assert await waiting(internal, limit_users=2, limit_notifications=1) == [
        ("u1", "a"),
        ("u2", "b"),
    ]


@pytest.mark.parametrize("name", ["limit_users", "limit_notifications"])
@pytest.mark.parametrize("value", [0, -1, 1001])
async def test_refuses_limits_out_of_range(
    internal: httpx2.AsyncClient, name: str, value: int
) -> None:
    """In the query and in the body."""
    answers = [
        await internal.get(UNDELIVERED, params={name: value}),
        await internal.post(UNDELIVERED, json={name: value}),
    ]
    assert [answer.status_code for answer in answers] == [400, 400]
    assert all(a.json()["details"]["fields"][0]["field"] == name for a in answers)


async def test_what_is_delivered_no_longer_waits(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """The user still sees it, as delivered."""
    first, second = await notify(agent, "a"), await notify(agent, "b")
    answer = await internal.post(deliver(first), params={"user_id": "u1"})
    assert answer.status_code == 200
    delivered = Delivered.model_validate(answer.json())
    assert (delivered.notification_id, delivered.already_delivered) == (first, False)
    assert await waiting(internal) == [("u1", "b")]
    items = {item["id"]: item for item in (await agent.get(PATH)).json()["items"]}
    assert items[first]["delivered_at"] == delivered.delivered_at
    assert "delivered_at" not in items[second]


async def test_delivering_twice_changes_nothing(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """A dispatcher that crashed after it delivered will try again."""
    made = await notify(agent)
    first = (await internal.post(deliver(made), params={"user_id": "u1"})).json()
    again = await internal.post(deliver(made), params={"user_id": "u1"})
    assert again.status_code == 200
    assert again.json() == {**first, "already_delivered": True}


async def test_only_a_users_own_notification_is_delivered(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """404 for an unknown one and for another user's; 400 without a user."""
    made = await notify(agent)
    assert (await internal.post(deliver("x"), params={"user_id": "u1"})).status_code == 404
    assert (await internal.post(deliver(made), params={"user_id": "u2"})).status_code == 404
    assert (await internal.post(deliver(made))).status_code == 400
    assert await waiting(internal) == [("u1", "Look")]


async def test_agents_cannot_dispatch(agent: httpx2.AsyncClient) -> None:
    """An agent's token is no internal token."""
    made = await notify(agent)
    assert (await agent.get(UNDELIVERED)).status_code == 401
    assert (await agent.post(deliver(made), params={"user_id": "u1"})).status_code == 401
