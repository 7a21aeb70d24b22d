from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend import FEATURES, BackendConfig, create_app
from clasper_worker.devkit.reference_backend.errors import ErrorBody

# The contract's endpoints (Part 1) and our additive ones.
ENDPOINTS = {
    ("get", "/health"): None,
    ("get", "/api/capabilities"): None,
    ("get", "/api/mission-control/capabilities"): None,
    ("get", "/api/mission-control/tasks"): "tasks",
    ("post", "/api/mission-control/tasks"): "tasks",
    ("patch", "/api/mission-control/tasks/{task_id}"): "tasks",
    ("get", "/api/mission-control/messages"): "history",
    ("post", "/api/mission-control/messages"): "messages",
    ("get", "/api/mission-control/documents"): "history",
    ("post", "/api/mission-control/documents"): "documents",
    ("get", "/api/mission-control/notifications"): "notifications",
    ("post", "/api/mission-control/notifications"): "notifications",
    ("get", "/api/mission-control/dispatch/undelivered"): "notifications_dispatch",
    ("post", "/api/mission-control/dispatch/undelivered"): "notifications_dispatch",
    (
        "post",
        "/api/mission-control/dispatch/notifications/{notification_id}/deliver",
    ): "notifications_dispatch",
    ("post", "/api/mission-control/heartbeat"): "heartbeat",
    ("post", "/api/mission-control/standup"): "standup",
    ("get", "/api/mission-control/events"): "events_sse",
    ("post", "/api/mission-control/tool-requests"): "tool_requests",
    ("get", "/api/mission-control/tool-requests"): "tool_requests",
    ("get", "/api/mission-control/tool-requests/{request_id}"): "tool_requests",
    ("patch", "/api/mission-control/tool-requests/{request_id}"): "tool_requests",
    ("get", "/api/tools"): "tools",
    ("post", "/api/tools/{name}"): "tools",
    ("get", "/api/mission-control/agents"): "agents",
    ("post", "/api/mission-control/agents"): "agents",
}
PROTECTED = [endpoint for endpoint in ENDPOINTS if endpoint[1] != "/health"]


async def call(client: httpx2.AsyncClient, method: str, path: str) -> httpx2.Response:
    return await client.request(method, re.sub(r"\{\w+\}", "x", path))


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def test_these_are_all_endpoints(backend: Any) -> None:
    """So that none escapes the tests below."""
    paths = (await backend.client().get("/openapi.json")).json()["paths"]
    assert {(method, path) for path, methods in paths.items() for method in methods} == set(
        ENDPOINTS
    )


@pytest.mark.parametrize(("method", "path"), PROTECTED)
async def test_every_endpoint_needs_a_token(backend: Any, method: str, path: str) -> None:
    """401 in the contract's shape, without one and with bad ones."""
    for headers in ({}, {"X-Agent-Token": "x"}, {"X-Internal-Token": "x"}, {"Authorization": "x"}):
        answer = await call(backend.client(headers), method, path)
        assert answer.status_code == 401
        assert ErrorBody.model_validate(answer.json()).code == "unauthorized"


@pytest.mark.parametrize("feature", FEATURES)
async def test_a_feature_that_is_off_is_not_there(
    make_backend: Callable[..., Any], feature: str
) -> None:
    """404 `feature_disabled` on its endpoints alone, and the capability is false."""
    backend = make_backend(disabled_features=frozenset({feature}))
    headers = {"X-Agent-Token": backend.token()}
    for (method, path), needed in ENDPOINTS.items():
        if needed == "events_sse" != feature:
            continue  # a stream that is on does not end
        answer = await call(backend.client(headers), method, path)
        is_off = answer.status_code == 404 and answer.json()["code"] == "feature_disabled"
        assert is_off == (needed == feature), (method, path)
        if is_off:
            assert answer.json()["details"] == {"feature": feature}
    answer = await backend.client(headers).get("/api/mission-control/capabilities")
    assert answer.json()["features"][feature] is False


async def test_without_an_internal_token_there_is_no_dispatch(
    make_backend: Callable[..., Any],
) -> None:
    """Off, rather than open or unreachable."""
    backend = make_backend(internal_api_token=None)
    for token in ("", "None", "x"):
        client = backend.client({"X-Internal-Token": token})
        for path in ("dispatch/undelivered", "agents"):
            answer = await client.get(f"/api/mission-control/{path}")
            assert (answer.status_code, answer.json()["code"]) == (404, "feature_disabled")
        body = {"user_id": "u1", "content": "x"}
        answer = await client.post("/api/mission-control/notifications", json=body)
        assert answer.status_code == 401


async def test_the_documentation_is_for_generators_and_people(backend: Any) -> None:
    """Every answer has a schema, every endpoint its security, and errors are the contract's."""
    client = backend.client()
    assert "swagger" in (await client.get("/docs")).text.lower()
    document = (await client.get("/openapi.json")).json()
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            answers = operation["responses"]
            assert "422" not in answers, (method, path)
            assert "ErrorBody" in str(answers["4XX"])
            assert operation["description"]
            if path != "/api/mission-control/events":
                success = answers.get("200") or answers["200"]
                assert "$ref" in success["content"]["application/json"]["schema"], (method, path)
            if path != "/health":
                assert operation["security"], (method, path)
    schemes = document["components"]["securitySchemes"]
    assert {scheme["name"] for scheme in schemes.values()} == {"X-Agent-Token", "X-Internal-Token"}


async def test_apps_in_memory_share_nothing(make_backend: Callable[..., Any]) -> None:
    """Tests can have as many as they like."""
    first, second = make_backend().agent(), make_backend().agent()
    await first.post("/api/mission-control/tasks", json={"title": "t"})
    assert (await second.get("/api/mission-control/tasks")).json() == {"items": []}


async def test_a_file_outlives_the_app(make_backend: Callable[..., Any], tmp_path: Path) -> None:
    """Everything is there again."""
    path = str(tmp_path / "b.db")
    before = make_backend(database=path)
    made = (await before.agent().post("/api/mission-control/tasks", json={"title": "t"})).json()
    await before.close()
    after = make_backend(database=path).agent()
    assert (await after.get("/api/mission-control/tasks")).json()["items"] == [made]


async def test_a_server_that_ends_closes_the_database(tmp_path: Path) -> None:
    """Through ASGI's lifespan; then the file stands alone, without its WAL."""
    path = tmp_path / "b.db"
    app = create_app(BackendConfig(agent_jwt_secret="x" * 64, database=str(path)))
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    sent: list[str] = []
    for kind in ("lifespan.startup", "lifespan.shutdown"):
        messages.put_nowait({"type": kind})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app.state.backend.store.write(lambda tx: tx.emit("u1", "task", "created", {}))
    assert "b.db-wal" in names(tmp_path)
    await app({"type": "lifespan", "asgi": {"version": "3.0"}}, messages.get, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert names(tmp_path) == ["b.db"]
