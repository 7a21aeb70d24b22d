from __future__ import annotations

from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import Page, ToolRequest

PATH = "/api/mission-control/tool-requests"


async def ask(agent: httpx2.AsyncClient, tool: str = "send_mail") -> str:
    answer = await agent.post(PATH, json={"tool": tool, "arguments": {"to": "x"}})
    assert answer.status_code == 200, answer.text
    found: str = answer.json()["id"]
    return found


async def test_a_request_is_pending_until_decided(agent: httpx2.AsyncClient, task_id: str) -> None:
    """With everything that the one who decides has to know."""
    body = {
        "tool": "send_mail",
        "arguments": {"to": ["a", "b"], "n": 1},
        "arguments_hash": "abc",
        "wait_id": "w1",
        "expires_at": "2026-12-01T00:00:00+00:00",
        "reason": "The user asked",
        "task_id": task_id,
        "turn_id": "turn-1",
        "session_key": "user:u1:writer",
    }
    answer = await agent.post(PATH, json=body)
    assert answer.status_code == 200
    found = ToolRequest.model_validate(answer.json())
    assert (found.status, found.agent_role) == ("pending", "writer")
    assert {name: answer.json()[name] for name in body} == body
    assert (await agent.get(f"{PATH}/{found.id}")).json() == answer.json()


@pytest.mark.parametrize("decision", ["approved", "rejected"])
async def test_the_product_decides_with_the_internal_token(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient, decision: str
) -> None:
    """The agent sees who decided what, and why."""
    made = await ask(agent)
    body = {"status": decision, "by": "ann", "reason": "fine"}
    answer = await internal.patch(f"{PATH}/{made}", json=body)
    assert answer.status_code == 200
    seen = ToolRequest.model_validate((await agent.get(f"{PATH}/{made}")).json())
    assert seen.model_dump() == ToolRequest.model_validate(answer.json()).model_dump()
    assert (seen.status, seen.by, seen.decision_reason) == (decision, "ann", "fine")
    assert seen.decided_at is not None


async def test_an_agent_of_the_tenant_decides(backend: Any, agent: httpx2.AsyncClient) -> None:
    """As the contract has it; the record says which role it was."""
    made = await ask(agent)
    answer = await backend.agent(role="lead").patch(f"{PATH}/{made}", json={"status": "approved"})
    assert answer.json()["by"] == "agent:lead"


async def test_a_decision_is_final(agent: httpx2.AsyncClient, internal: httpx2.AsyncClient) -> None:
    """The same one again is no error; the opposite is a conflict."""
    made = await ask(agent)
    first = await internal.patch(f"{PATH}/{made}", json={"status": "rejected"})
    again = await internal.patch(f"{PATH}/{made}", json={"status": "rejected", "reason": "x"})
    assert again.json() == first.json()
    opposite = await internal.patch(f"{PATH}/{made}", json={"status": "approved"})
    assert opposite.status_code == 409
    assert opposite.json()["code"] == "already_decided"
    assert (await agent.get(f"{PATH}/{made}")).json() == first.json()


async def test_lists_by_status(agent: httpx2.AsyncClient) -> None:
    """Somebody who decides wants the pending ones."""
    first, second = await ask(agent, "a"), await ask(agent, "b")
    await agent.patch(f"{PATH}/{first}", json={"status": "approved"})
    pending = Page[ToolRequest].model_validate(
        (await agent.get(PATH, params={"status": "pending"})).json()
    )
    assert [item.id for item in pending.items] == [second]
    assert [item["id"] for item in (await agent.get(PATH)).json()["items"]] == [first, second]
    assert (await agent.get(PATH, params={"status": "maybe"})).status_code == 400


@pytest.mark.parametrize("status", ["pending", "maybe", "", None])
async def test_refuses_other_decisions(agent: httpx2.AsyncClient, status: str | None) -> None:
    """Approved or rejected."""
    made = await ask(agent)
    assert (await agent.patch(f"{PATH}/{made}", json={"status": status})).status_code == 400


async def test_another_tenant_sees_and_decides_nothing(
    backend: Any, agent: httpx2.AsyncClient
) -> None:
    """404 for what is somebody else's."""
    made = await ask(agent)
    other = backend.agent("u2")
    assert (await other.get(f"{PATH}/{made}")).status_code == 404
    assert (await other.patch(f"{PATH}/{made}", json={"status": "approved"})).status_code == 404
    assert (await other.get(PATH)).json() == {"items": []}
    assert (await agent.get(f"{PATH}/{made}")).json()["status"] == "pending"


async def test_there_is_nothing_to_decide_that_was_not_asked(internal: httpx2.AsyncClient) -> None:
    """404 for the internal token, too."""
    assert (await internal.patch(f"{PATH}/x", json={"status": "approved"})).status_code == 404


async def test_a_request_in_an_unknown_task_is_refused(agent: httpx2.AsyncClient) -> None:
    """404, as for a message."""
    body = {"tool": "x", "task_id": "nope"}
    assert (await agent.post(PATH, json=body)).status_code == 404


async def test_a_decision_may_change_the_arguments_and_is_found_by_what_waits(
    agent: httpx2.AsyncClient, internal: httpx2.AsyncClient
) -> None:
    """What was approved is what the list shows then."""
    for wait in ("w1", "w2"):
        body = {"tool": "send_mail", "arguments": {"to": "x"}, "wait_id": wait}
        made = (await agent.post(PATH, json=body)).json()
    decision = {"status": "approved", "arguments": {"to": "y"}, "by": "ann", "reason": "typo"}
    await internal.patch(f"{PATH}/{made['id']}", json=decision)
    (found,) = (await agent.get(PATH, params={"wait_id": "w2"})).json()["items"]
    assert (found["id"], found["status"], found["arguments"]) == (
        made["id"], "approved", {"to": "y"},
    )  # fmt: skip
