"""Progress as Celery events says where a turn is, never what it says."""

from __future__ import annotations

from typing import Any

import pytest

from clasper_worker.engine.pool import task_events
from clasper_worker.observability.events import ModelAnswer, TurnEnd, TurnReference
from clasper_worker.turn.progress import ProgressEvents

TURN = TurnReference("turn", "job", "0" * 32, "u", "user:u:writer", "writer")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []

    def note(kind: str, job_id: str, **fields: Any) -> None:
        events.append({"kind": kind, "job": job_id, **fields})

    monkeypatch.setattr(task_events, "send", note)
    return events


def test_each_phase_is_told_with_its_names_and_numbers(sent: list[dict[str, Any]]) -> None:
    events = ProgressEvents()
    events.queued(TURN, reason="session", ahead=2)
    events.model_asked(TURN, step=1)
    events.tool_called(TURN, step=1, index=0, tool="list_tasks")
    events.waiting(TURN, reason="rate_limit", seconds=2.5)
    common = {"kind": "task-progress", "job": "job", "turn_id": "turn"}
    assert sent == [
        {**common, "phase": "queued", "reason": "session", "ahead": 2},
        {**common, "phase": "model", "step": 1},
        {**common, "phase": "tool", "step": 1, "index": 0, "tool": "list_tasks"},
        {**common, "phase": "waiting", "reason": "rate_limit", "seconds": 2.5},
    ]


def test_text_and_what_celery_tells_itself_are_not_sent(sent: list[dict[str, Any]]) -> None:
    events = ProgressEvents()
    events.started(TURN, resumed=False, queue_seconds=0.0)
    events.chunk(TURN, step=1, text="private")
    events.model_answered(TURN, ModelAnswer(1, "openai", "gpt", 0.1, 1, 1, 0, 0, "stop"))
    events.ended(TURN, TurnEnd("ok"))
    assert sent == []
