from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.devkit.reference_backend import BackendConfig, create_app
from clasper_worker.devkit.reference_backend.errors import ErrorBody
from tests.examples import examples

TASKS = "/api/mission-control/tasks"
JSON = {"Content-Type": "application/json"}


def check(answer: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "code", "details"}
    body = ErrorBody.model_validate(answer.json())
    assert body.error
    assert body.code == code
    return body.details


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'"text"',
        b"null",
        b"7",
        b'{"title": "\xff"}',
        b'{"title": "t", "metadata": {"x": NaN}}',
        b'{"title": "t", "metadata": {"x": -Infinity}}',
        b'{"title": "t", "extra": NaN}',
        b'{"title": "\\ud800"}',
        b'{"title": "t", "metadata": {"\\udfff": 1}}',
        b'{"title": "t", "extra": ["\\ud800"]}',
        b'{"title": "t", "extra": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"title": "t", "extra": ' + b"9" * 5_000 + b"}",
    ],
)
async def test_refuses_bodies_that_are_no_proper_json_object(
    agent: httpx2.AsyncClient, content: bytes
) -> None:
    """400, never a failure, and nothing is stored."""
    answer = await agent.post(TASKS, content=content, headers=JSON)
    check(answer, 400, "invalid_request")
    assert (await agent.get(TASKS)).json() == {"items": []}


@pytest.mark.parametrize("depth", [100, 400, 800, 850, 900, 920, 940, 950, 960, 970, 980, 990])
async def test_deep_nesting_is_stored_or_refused(agent: httpx2.AsyncClient, depth: int) -> None:
    """What is accepted can also be listed and repeated."""
    inside = b"[" * depth + b"]" * depth
    content = b'{"title": "t", "idempotency_key": "k", "metadata": {"x": ' + inside + b"}}"
    answers = [await agent.post(TASKS, content=content, headers=JSON) for _ in range(2)]
    assert answers[0].content == answers[1].content
    assert answers[0].status_code in {200, 400}
    listed = await agent.get(TASKS)
    assert listed.status_code == 200
    assert len(listed.json()["items"]) == (1 if answers[0].status_code == 200 else 0)


async def test_refuses_bodies_that_are_not_declared_as_json(agent: httpx2.AsyncClient) -> None:
    """A form, or text that happens to look like JSON."""
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = await agent.post(TASKS, content=b'{"title":"t"}', headers={"Content-Type": kind})
        details = check(answer, 400, "invalid_request")
        assert "application/json" in details["fields"][0]["fix"]


async def test_tells_all_that_is_wrong_and_no_values(agent: httpx2.AsyncClient) -> None:
    """One round is enough to fix a request; people's text is not repeated."""
    body = {"title": " ", "description": ["SECRET"], "status": {"SECRET": 1}}
    answer = await agent.post(TASKS, json=body)
    details = check(answer, 400, "invalid_request")
    assert [item["field"] for item in details["fields"]] == ["title", "description", "status"]
    assert "SECRET" not in answer.text


async def test_an_unknown_path_is_404(agent: httpx2.AsyncClient) -> None:
    """Also one with a slash too many."""
    for path in ("/", "/api", "/api/mission-control/nope", TASKS + "/"):
        check(await agent.get(path), 404, "not_found")


async def test_a_wrong_method_is_405(agent: httpx2.AsyncClient) -> None:
    """HTTP says which ones there are (RFC 9110, section 15.5.6)."""
    answer = await agent.delete(TASKS)
    check(answer, 405, "method_not_allowed")
    assert answer.headers["Allow"]


async def test_a_body_that_is_too_large_is_413(make_backend: Callable[..., Any]) -> None:
    """With and without a declared length."""
    client = make_backend(max_body_bytes=100).agent()

    async def pieces() -> Any:
        for _ in range(3):
            yield b" " * 50

    check(await client.post(TASKS, json={"title": "x" * 200}), 413, "too_large")
    check(await client.post(TASKS, content=pieces(), headers=JSON), 413, "too_large")
    assert (await client.post(TASKS, json={"title": "t"})).status_code == 200


async def test_a_bug_is_500_without_its_text(
    backend: Any, agent: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has it; the caller does not need it."""

    def fail(query: object) -> None:
        raise RuntimeError("SECRET")

    monkeypatch.setattr(backend.app.state.backend.store, "read", fail)
    answer = await agent.get(TASKS)
    check(answer, 500, "internal")
    assert "SECRET" not in answer.text


_APP: list[FastAPI] = []
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(codec=None)),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(codec=None), max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)
_FIELDS = [
    "task_id",
    "title",
    "content",
    "actor_type",
    "agent_role",
    "user_id",
    "timezone",
    "metadata",
    "attachments",
    "arguments",
    "idempotency_key",
    "tool",
    "session_key",
    "status",
    "limit_users",
]
_PLAUSIBLE: dict[str, Any] = {
    "title": "t",
    "content": "c",
    "actor_type": "agent",
    "agent_role": "writer",
    "user_id": "u1",
    "timezone": "UTC",
    "tool": "x",
}
_PATHS = [
    *(
        f"/api/mission-control/{name}"
        for name in (
            "tasks",
            "messages",
            "documents",
            "notifications",
            "heartbeat",
            "standup",
            "tool-requests",
            "agents",
            "dispatch/undelivered",
        )
    ),
    "/api/tools/set_task_status",
    "/api/tools/count_tasks_by_status",
]


@pytest.fixture(scope="module")
def client_headers() -> dict[str, str]:
    """Both tokens, so that every endpoint is reached."""
    import time

    import jwt

    end = int(time.time()) + 3600
    claims = {"type": "agent", "user_id": "u1", "agent_role": "writer", "exp": end}
    return {"X-Agent-Token": jwt.encode(claims, "x" * 64), "X-Internal-Token": "inner"}


@pytest.fixture(scope="module")
def shared_app() -> FastAPI:
    """One app for many examples."""
    return create_app(BackendConfig(agent_jwt_secret="x" * 64, internal_api_token="inner"))


@settings(max_examples=examples(200), deadline=None)
@given(
    path=st.sampled_from(_PATHS),
    fields=st.dictionaries(st.sampled_from(_FIELDS) | st.text(max_size=5), _json, max_size=4),
)
async def test_no_body_makes_the_backend_fail(
    shared_app: FastAPI, client_headers: dict[str, str], path: str, fields: dict[str, Any]
) -> None:
    """Whatever JSON, and almost JSON, is sent: a 4xx in the contract's shape, or a success."""
    import json

    content = json.dumps({**_PLAUSIBLE, **fields})
    transport = httpx2.ASGITransport(shared_app)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://backend", headers={**client_headers, **JSON}
    ) as client:
        answer = await client.post(path, content=content)
    assert answer.status_code < 500
    body = answer.json()
    if answer.status_code >= 400:
        ErrorBody.model_validate(body)
    else:
        assert not any(math.isnan(x) for x in body.values() if isinstance(x, float))
