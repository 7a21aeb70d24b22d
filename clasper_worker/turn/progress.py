"""A turn's progress as Celery events, for Flower and ``celery events``: names and numbers alone."""

from __future__ import annotations

from typing import Any

from clasper_worker.engine.pool.task_events import task_events
from clasper_worker.observability.events import TurnEvents, TurnReference


class ProgressEvents(TurnEvents):
    """Sends ``task-progress`` as a turn comes to wait, to ask the model and to call a tool."""

    def queued(self, turn: TurnReference, *, reason: str, ahead: int) -> None:
        """See `TurnEvents.queued`."""
        _send(turn, "queued", reason=reason, ahead=ahead)

    def model_asked(self, turn: TurnReference, *, step: int) -> None:
        """See `TurnEvents.model_asked`."""
        _send(turn, "model", step=step)

    def tool_called(self, turn: TurnReference, *, step: int, index: int, tool: str) -> None:
        """See `TurnEvents.tool_called`."""
        _send(turn, "tool", step=step, index=index, tool=tool)

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        """See `TurnEvents.waiting`."""
        _send(turn, "waiting", reason=reason, seconds=seconds)


def _send(turn: TurnReference, phase: str, **facts: Any) -> None:
    task_events.send("task-progress", turn.job_id, phase=phase, turn_id=turn.turn_id, **facts)
