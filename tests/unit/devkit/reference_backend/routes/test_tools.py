from __future__ import annotations

from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import ToolList

TASKS = "/api/mission-control/tasks"


async def test_lists_tools_with_json_schema(agent: httpx2.AsyncClient) -> None:
    """In the form that models are given."""
    listed = ToolList.model_validate((await agent.get("/api/tools")).json())
    by_name = {tool.name: tool for tool in listed.tools}
    assert set(by_name) == {"echo", "count_tasks_by_status", "set_task_status"}
    assert by_name["set_task_status"].effect == "write"
    for tool in by_name.values():
        assert tool.description
        assert tool.parameters["type"] == "object"
        assert tool.parameters["additionalProperties"] is False
    assert by_name["count_tasks_by_status"].parameters["properties"] == {}
    parameters: Any = by_name["set_task_status"].parameters
    assert parameters["required"] == ["task_id", "status"]
    assert "in_progress" in parameters["properties"]["status"]["enum"]


@pytest.mark.parametrize("body", [{}, {"arguments": {}}, {"arguments": None}])
async def test_counts_tasks(agent: httpx2.AsyncClient, body: dict[str, Any]) -> None:
    """Of each status; arguments may be left out where there are none."""
    for status in ("todo", "done", "todo"):
        await agent.post(TASKS, json={"title": "t", "status": status})
    answer = await agent.post("/api/tools/count_tasks_by_status", json=body)
    assert answer.status_code == 200
    assert answer.json() == {"counts": {"done": 1, "todo": 2}, "total": 3}


async def test_echoes(agent: httpx2.AsyncClient) -> None:
    """The one tool of the original's."""
    answer = await agent.post("/api/tools/echo", json={"arguments": {"message": "hi"}})
    assert (answer.status_code, answer.json()) == (200, {"message": "hi"})


async def test_sets_a_tasks_status(agent: httpx2.AsyncClient, task_id: str) -> None:
    """Really."""
    body = {"arguments": {"task_id": task_id, "status": "done"}}
    answer = await agent.post("/api/tools/set_task_status", json=body)
    assert answer.json() == {"id": task_id, "title": "A task", "status": "done"}
    assert (await agent.get(TASKS)).json()["items"][0]["status"] == "done"


async def test_a_tool_call_has_one_effect_for_each_key(
    agent: httpx2.AsyncClient, task_id: str
) -> None:
    """A redelivered turn repeats its calls."""
    body = {"arguments": {"task_id": task_id, "status": "done"}, "idempotency_key": "u1:t1:0"}
    first = await agent.post("/api/tools/set_task_status", json=body)
    await agent.patch(f"{TASKS}/{task_id}", json={"status": "todo"})
    again = await agent.post("/api/tools/set_task_status", json=body)
    assert again.content == first.content
    assert (await agent.get(TASKS)).json()["items"][0]["status"] == "todo"


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"status": "done"}, "arguments.task_id"),
        ({"task_id": "x", "status": "finished"}, "arguments.status"),
        ({"task_id": 7, "status": "done"}, "arguments.task_id"),
        ({"task_id": "x", "status": "done", "force": True}, "arguments.force"),
        ([], "arguments"),
    ],
)
async def test_refuses_bad_arguments(
    agent: httpx2.AsyncClient, arguments: object, field: str
) -> None:
    """With what a model needs to fix its call."""
    answer = await agent.post("/api/tools/set_task_status", json={"arguments": arguments})
    assert answer.status_code == 400
    assert [item["field"] for item in answer.json()["details"]["fields"]] == [field]


async def test_there_is_no_other_tool(agent: httpx2.AsyncClient) -> None:
    """404 names those that there are."""
    answer = await agent.post("/api/tools/rm", json={"arguments": {}})
    assert answer.status_code == 404
    assert "set_task_status" in answer.json()["error"]


async def test_a_tool_reaches_the_callers_tenant_alone(backend: Any, task_id: str) -> None:
    """404 for another user's task."""
    other = backend.agent("u2")
    body = {"arguments": {"task_id": task_id, "status": "done"}}
    assert (await other.post("/api/tools/set_task_status", json=body)).status_code == 404
    counted = (await other.post("/api/tools/count_tasks_by_status", json={})).json()
    assert counted == {"counts": {}, "total": 0}
