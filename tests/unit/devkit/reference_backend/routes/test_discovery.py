from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2

from clasper_worker.devkit.reference_backend.answers import Capabilities, Health


async def test_capabilities_name_the_contract_and_every_feature(agent: httpx2.AsyncClient) -> None:
    """The contract's eight features, and the additive ones."""
    answer = await agent.get("/api/mission-control/capabilities")
    found = Capabilities.model_validate(answer.json())
    assert found.contract_version == "v1"
    assert set(found.features) >= {
        "tasks",
        "messages",
        "documents",
        "notifications_dispatch",
        "events_sse",
        "heartbeat",
        "standup",
        "tool_requests",
        "history",
        "agents",
    }
    assert all(found.features.values())


async def test_capabilities_are_at_the_originals_place_too(
    backend: Any, agent: httpx2.AsyncClient
) -> None:
    """And name there, as a list, what the original's clients look for."""
    answer = await agent.get("/api/capabilities")
    assert answer.json() == (await agent.get("/api/mission-control/capabilities")).json()
    assert {"tool_discovery", "/api/tools", "/api/tools/{tool_name}", "tasks"} <= set(
        answer.json()["features_list"]
    )
    assert (await backend.client({}).get("/api/capabilities")).status_code == 401


async def test_capabilities_answer_either_token(internal: httpx2.AsyncClient) -> None:
    """A dispatcher has the internal token alone."""
    assert (await internal.get("/api/mission-control/capabilities")).status_code == 200


async def test_capabilities_show_what_is_off(make_backend: Callable[..., Any]) -> None:
    """Clients gate by this."""
    client = make_backend(disabled_features=frozenset({"standup"})).agent()
    features = (await client.get("/api/mission-control/capabilities")).json()["features"]
    assert [name for name, on in features.items() if not on] == ["standup"]


async def test_a_wrong_internal_token_is_not_made_good_by_an_agents(backend: Any) -> None:
    """Whoever claims to be internal has to prove it."""
    headers = {"X-Agent-Token": backend.token(), "X-Internal-Token": "wrong"}
    answer = await backend.client(headers).get("/api/mission-control/capabilities")
    assert answer.status_code == 401


async def test_health_needs_no_token(backend: Any) -> None:
    """Probes have none."""
    answer = await backend.client().get("/health")
    assert answer.status_code == 200
    Health.model_validate(answer.json())


async def test_health_fails_with_the_database(backend: Any) -> None:
    """A backend without its data is not healthy."""
    backend.app.state.backend.store.close()
    answer = await backend.client().get("/health")
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
