from __future__ import annotations

import base64
import uuid
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.reference_backend import BackendConfig, create_app
from clasper_worker.reference_backend.auth import Agent
from clasper_worker.reference_backend.errors import ApiError
from clasper_worker.reference_backend.records import (
    DOCUMENTS,
    TASKS,
    insert,
    page,
    read_cursor,
    write_cursor,
)
from clasper_worker.reference_backend.store import Store

PATH = "/api/mission-control/tasks"


@pytest.fixture(scope="module")
def shared_app() -> Iterator[FastAPI]:
    """One app for many examples; each uses a user of its own."""
    app = create_app(BackendConfig(agent_jwt_secret="x" * 64))
    yield app
    app.state.backend.store.close()


async def add(store: Store, user_id: str, title: str) -> None:
    values = {
        "title": title,
        "status": "todo",
        "metadata": {},
        "created_at": "2026",
        "updated_at": "2026",
    }
    await store.write(lambda transaction: insert(transaction, TASKS, user_id, values))


@settings(max_examples=40, deadline=None)
@given(data=st.data(), before=st.integers(0, 25))
async def test_walking_the_pages_sees_everything_once(
    shared_app: FastAPI, monkeypatch: pytest.MonkeyPatch, data: st.DataObject, before: int
) -> None:
    """Whatever the limits, and whatever is added meanwhile, by this user and another."""


async def walk(
    app: FastAPI, user_id: str, limits: Iterator[int], arrivals: Iterator[int]
) -> list[str]:
    backend = app.state.backend
    number = 0
    seen: list[str] = []
    cursor = None
    while True:
        for _ in range(next(arrivals)):
            await add(backend.store, user_id, f"late {number}")
            await add(backend.store, f"not {user_id}", "another's")
            number += 1
        answer = backend.store.read(
            lambda connection, cursor=cursor: page(
                connection, TASKS, {"user_id": user_id}, next(limits), cursor
            )
        )
        seen += [item["title"] for item in answer["items"]]
        cursor = answer.get("next_cursor")
        if cursor is None:
            return seen
