from __future__ import annotations

import base64
import contextlib
import itertools
import time
import uuid
from collections.abc import Iterator

import httpx2
import jwt
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.devkit.reference_backend import BackendConfig, create_app
from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.devkit.reference_backend.records import (
    DOCUMENTS,
    MESSAGES,
    NOTIFICATIONS,
    TASKS,
    TOOL_REQUESTS,
    Table,
    insert,
    read_cursor,
    write_cursor,
)
from clasper_worker.devkit.reference_backend.store import Store
from tests.examples import examples

PATH = "/api/mission-control/tasks"
SECRET = "a-secret-of-the-tests-with-more-than-32-bytes"


@pytest.fixture(scope="module")
def shared_app() -> Iterator[FastAPI]:
    """One app for many examples; each example has a user of its own."""
    app = create_app(BackendConfig(agent_jwt_secret=SECRET))
    yield app
    app.state.backend.store.close()


async def add_tasks(store: Store, user_id: str, titles: list[str]) -> None:
    for title in titles:
        values = {
            "title": title,
            "status": "todo",
            "metadata": {},
            "created_at": "2026-01-01T00:00:00+00:00",  # equal times must not confuse the order
            "updated_at": "2026-01-01T00:00:00+00:00",
        }
        await store.write(lambda tx, values=values: insert(tx, TASKS, user_id, values))  # type: ignore[misc]


@settings(max_examples=examples(50), deadline=None)
@given(
    before=st.integers(0, 40),
    limits=st.lists(st.integers(1, 100) | st.integers(1, 7), min_size=1, max_size=8),
    arrivals=st.lists(st.integers(0, 3), max_size=6),
)
async def test_walking_the_pages_sees_everything_once(
    shared_app: FastAPI, before: int, limits: list[int], arrivals: list[int]
) -> None:
    """In order, whatever the limits, and whatever is added meanwhile, here and elsewhere."""
    store = shared_app.state.backend.store
    user_id = str(uuid.uuid4())
    names = (f"t{number}" for number in itertools.count())
    expected = list(itertools.islice(names, before))
    await add_tasks(store, user_id, expected)

    claims = {"type": "agent", "user_id": user_id, "agent_role": "x", "exp": time.time() + 600}
    headers = {"X-Agent-Token": jwt.encode(claims, SECRET)}
    transport = httpx2.ASGITransport(shared_app)
    seen: list[str] = []
    params: dict[str, str | int] = {}
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://backend", headers=headers
    ) as client:
        for limit, number in zip(
            itertools.cycle(limits), itertools.chain(arrivals, itertools.repeat(0)), strict=False
        ):
            late = list(itertools.islice(names, number))
            await add_tasks(store, user_id, late)
            await add_tasks(store, f"another than {user_id}", late)
            expected += late
            answer = (await client.get(PATH, params={**params, "limit": limit})).json()
            seen += [item["title"] for item in answer["items"]]
            assert len(seen) <= len(expected)
            if "next_cursor" not in answer:
                break
            assert len(answer["items"]) == limit
            params["cursor"] = answer["next_cursor"]
    assert seen == expected


@given(seq=st.integers(0, 2**63 - 1))
def test_a_cursor_is_read_back(seq: int) -> None:
    """Whatever it points at."""
    assert read_cursor(TASKS, write_cursor(TASKS, seq)) == seq


def test_no_cursor_is_the_beginning() -> None:
    """The first page."""
    assert read_cursor(TASKS, None) == 0


@given(cursor=st.text())
def test_any_text_is_a_cursor_or_refused(cursor: str) -> None:
    """Never a failure of the backend."""
    with contextlib.suppress(ApiError):
        assert read_cursor(TASKS, cursor) >= 0


@pytest.mark.parametrize(
    "inside",
    ["tasks:-1", "tasks:x", "tasks:", "tasks", "tasks:1:2", f"tasks:{2**63}", "messages:1"],
)
def test_refuses_cursors_that_no_page_gave(inside: str) -> None:
    """Also those of another list."""
    cursor = base64.urlsafe_b64encode(inside.encode()).decode().rstrip("=")
    with pytest.raises(ApiError) as caught:
        read_cursor(TASKS, cursor)
    assert caught.value.details["fields"][0]["field"] == "cursor"


async def test_a_bad_cursor_is_answered_with_400(agent: httpx2.AsyncClient) -> None:
    """Through the endpoint, too."""
    assert (await agent.get(PATH, params={"cursor": "x"})).status_code == 400


async def test_another_users_cursor_shows_nothing_of_theirs(
    shared_app: FastAPI,
) -> None:
    """A cursor is a place, not a permission."""
    store = shared_app.state.backend.store
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    await add_tasks(store, first, ["a", "b"])
    await add_tasks(store, second, ["c"])
    claims = {"type": "agent", "user_id": second, "agent_role": "x", "exp": time.time() + 600}
    headers = {"X-Agent-Token": jwt.encode(claims, SECRET)}
    async with httpx2.AsyncClient(
        transport=httpx2.ASGITransport(shared_app), base_url="http://backend", headers=headers
    ) as client:
        answer = await client.get(PATH, params={"cursor": write_cursor(TASKS, 0)})
    assert [item["title"] for item in answer.json()["items"]] == ["c"]


@pytest.mark.parametrize(
    "table", [TASKS, MESSAGES, DOCUMENTS, NOTIFICATIONS, TOOL_REQUESTS], ids=lambda t: t.name
)
def test_a_page_is_found_by_an_index(table: Table) -> None:
    """A small tenant's page must not take longer for the big tenants beside it."""
    store = Store()
    plan = store.read(
        lambda connection: connection.execute(
            f"EXPLAIN QUERY PLAN SELECT seq FROM {table.name} "
            "WHERE seq > 5 AND user_id = 'u' ORDER BY seq LIMIT 3"
        ).fetchall()
    )
    store.close()
    steps = [row["detail"] for row in plan]
    assert len(steps) == 1, "sorting would be a second step"
    assert "USING" in steps[0]
    assert "user_id=? AND seq>?" in steps[0].replace("rowid>?", "seq>?")
