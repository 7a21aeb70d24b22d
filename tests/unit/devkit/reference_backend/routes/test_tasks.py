from __future__ import annotations

from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import Page, Task

PATH = "/api/mission-control/tasks"


async def test_a_new_task_has_the_contracts_defaults(agent: httpx2.AsyncClient) -> None:
    """Status `in_progress` and metadata `{"type": "agent_thread"}`."""
    answer = await agent.post(PATH, json={"title": "Write the plan"})
    assert answer.status_code == 200
    task = Task.model_validate(answer.json())
    assert (task.title, task.status) == ("Write the plan", "in_progress")
    assert task.metadata == {"type": "agent_thread"}
    assert "description" not in answer.json()


async def test_a_new_task_keeps_what_it_was_given(agent: httpx2.AsyncClient) -> None:
    """Also metadata of any shape, and text in any script."""
    given = {
        "title": "Ж 🚀 \0 'quoted\"; --",
        "description": "Zeile 1\nZeile 2",
        "status": "todo",
        "metadata": {"a": [1, 2.5, None, {"b": "ü"}], "type": "x"},
    }
    made = (await agent.post(PATH, json=given)).json()
    assert {name: made[name] for name in given} == given
    assert (await agent.get(PATH)).json()["items"] == [made]


async def test_null_means_not_given(agent: httpx2.AsyncClient) -> None:
    """Many clients send null for what they leave out."""
    given = {"title": "t", "description": None, "status": None, "metadata": None}
    made = (await agent.post(PATH, json={**given, "idempotency_key": None})).json()
    assert made["status"] == "in_progress"
    assert made["metadata"] == {"type": "agent_thread"}


async def test_unknown_fields_are_ignored(agent: httpx2.AsyncClient) -> None:
    """Additive fields must not break (contract, "Compatibility rules")."""
    answer = await agent.post(PATH, json={"title": "t", "id": "mine", "user_id": "u2", "x": {}})
    assert answer.status_code == 200
    assert answer.json()["id"] != "mine"
    assert len((await agent.get(PATH)).json()["items"]) == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "title"),
        ({"title": ""}, "title"),
        ({"title": "  \n"}, "title"),
        ({"title": 7}, "title"),
        ({"title": "x" * 1001}, "title"),
        ({"title": "t", "status": ""}, "status"),
        ({"title": "t", "metadata": []}, "metadata"),
        ({"title": "t", "idempotency_key": ""}, "idempotency_key"),
        ({"title": "t", "idempotency_key": "k" * 513}, "idempotency_key"),
    ],
)
async def test_refuses_bad_tasks_and_names_the_field(
    agent: httpx2.AsyncClient, body: dict[str, Any], field: str
) -> None:
    """400 with what to fix, and nothing is stored."""
    answer = await agent.post(PATH, json=body)
    assert answer.status_code == 400
    fields = answer.json()["details"]["fields"]
    assert [item["field"] for item in fields] == [field]
    assert all(item["problem"] and item["fix"] for item in fields)
    assert (await agent.get(PATH)).json() == {"items": []}


async def test_lists_oldest_first(agent: httpx2.AsyncClient) -> None:
    """The order of arrival."""
    for number in range(5):
        await agent.post(PATH, json={"title": f"t{number}"})
    page = Page[Task].model_validate((await agent.get(PATH)).json())
    assert [task.title for task in page.items] == ["t0", "t1", "t2", "t3", "t4"]
    assert page.next_cursor is None


@pytest.mark.parametrize("limit", ["x", "1.5", "", "0x5"])
async def test_refuses_limits_that_are_no_numbers(agent: httpx2.AsyncClient, limit: str) -> None:
    """1 to 200."""
    answer = await agent.get(PATH, params={"limit": limit})
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == "limit"


async def test_a_change_is_seen_and_moves_nothing(agent: httpx2.AsyncClient) -> None:
    """Only what is sent changes; the order stays."""
    first = (await agent.post(PATH, json={"title": "a", "description": "d"})).json()
    await agent.post(PATH, json={"title": "b"})
    answer = await agent.patch(f"{PATH}/{first['id']}", json={"status": "done"})
    assert answer.status_code == 200
    changed = answer.json()
    assert changed["updated_at"] > first["updated_at"]
    assert changed == {**first, "status": "done", "updated_at": changed["updated_at"]}
    assert [task["title"] for task in (await agent.get(PATH)).json()["items"]] == ["a", "b"]


async def test_an_empty_change_is_refused(agent: httpx2.AsyncClient, task_id: str) -> None:
    """It would say that it did something."""
    assert (await agent.patch(f"{PATH}/{task_id}", json={"state": "done"})).status_code == 400


async def test_the_task_of_another_user_cannot_be_changed(
    backend: Any, agent: httpx2.AsyncClient, task_id: str
) -> None:
    """404: not even that it exists is told."""
    other = backend.agent("u2")
    assert (await other.patch(f"{PATH}/{task_id}", json={"status": "done"})).status_code == 404
    assert (await agent.get(PATH)).json()["items"][0]["status"] == "in_progress"


@pytest.mark.parametrize(
    ("limit", "items"), [("0", 1), ("-7", 1), ("3", 3), ("101", 100), (str(10**30), 100)]
)
async def test_clamps_limits_from_1_to_100(
    agent: httpx2.AsyncClient, limit: str, items: int
) -> None:
    """As the original does: a client that asks for too many gets many."""
    for number in range(101):
        await agent.post(PATH, json={"title": f"{number}"})
    answer = await agent.get(PATH, params={"limit": limit})
    assert len(answer.json()["items"]) == items
