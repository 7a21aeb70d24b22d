from __future__ import annotations

from typing import Any

import httpx2
import pytest

from clasper_worker.devkit.reference_backend.answers import Document

PATH = "/api/mission-control/documents"


async def test_creates_a_document(agent: httpx2.AsyncClient, task_id: str) -> None:
    """The answer has id, title, doc_type and task_id."""
    body = {"title": "Plan", "content": "1. Go", "doc_type": "plan", "task_id": task_id}
    answer = await agent.post(PATH, json=body)
    assert answer.status_code == 200
    Document.model_validate(answer.json())
    assert {name: answer.json()[name] for name in body} == body


async def test_a_document_without_a_type_gets_one(agent: httpx2.AsyncClient, task_id: str) -> None:
    """The response's `doc_type` is not optional."""
    body = {"title": "Plan", "content": "1. Go", "task_id": task_id}
    assert (await agent.post(PATH, json=body)).json()["doc_type"] == "document"


async def test_lists_a_tasks_documents(agent: httpx2.AsyncClient, task_id: str) -> None:
    """Oldest first, with their content; those of other tasks are not among them."""
    other = (await agent.post("/api/mission-control/tasks", json={"title": "Other"})).json()["id"]
    for task, title in ((task_id, "a"), (other, "b"), (task_id, "c")):
        await agent.post(PATH, json={"title": title, "content": "text", "task_id": task})
    found = (await agent.get(PATH, params={"task_id": task_id})).json()["items"]
    assert [(item["title"], item["content"]) for item in found] == [("a", "text"), ("c", "text")]
    assert len((await agent.get(PATH)).json()["items"]) == 3


@pytest.mark.parametrize("field", ["title", "content", "task_id"])
async def test_refuses_incomplete_documents(
    agent: httpx2.AsyncClient, task_id: str, field: str
) -> None:
    """400 names what is missing."""
    body = {"title": "Plan", "content": "1. Go", "task_id": task_id}
    del body[field]
    answer = await agent.post(PATH, json=body)
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == field


async def test_another_users_task_is_not_there(backend: Any, task_id: str) -> None:
    """Neither to write to, nor to read."""
    other = backend.agent("u2")
    body = {"title": "Plan", "content": "1. Go", "task_id": task_id}
    assert (await other.post(PATH, json=body)).status_code == 404
    assert (await other.get(PATH, params={"task_id": task_id})).status_code == 404
