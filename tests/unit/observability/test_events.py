from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from structlog.testing import capture_logs

from clasper_worker.observability.events import (
    EventListeners,
    ModelAnswer,
    PromptFacts,
    TurnEnd,
    TurnEvents,
    TurnReference,
)

TURN = TurnReference("t1", "j1", "0" * 32, "u1", "user:u1:writer", "writer")
ANSWER = ModelAnswer(1, "openai", "gpt", 0.5, 10, 5, 2, 0, "stop")
CALLS: dict[str, dict[str, Any]] = {
    "queued": {"reason": "session", "ahead": 2},
    "started": {"resumed": False, "queue_seconds": 0.2},
    "prompt_built": {"prompt": PromptFacts(0.01, 3, 100)},
    "model_asked": {"step": 1},
    "chunk": {"step": 1, "text": "Hi"},
    "retry": {"step": 1},
    "model_answered": {"answer": ANSWER},
    "tool_called": {"step": 1, "index": 0, "tool": "list_tasks"},
    "tool_answered": {
        "step": 1,
        "index": 0,
        "tool": "list_tasks",
        "seconds": 0.1,
        "chars": 9,
        "succeeded": True,
    },
    "waiting": {"reason": "circuit", "seconds": None},
    "posted": {"what": "reply", "seconds": 0.1},
    "ended": {"end": TurnEnd("ok")},
}


class Recorder(TurnEvents):
    """Notes every event that it is told."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in CALLS:
            heard = object.__getattribute__(self, "heard")
            return lambda _turn, *args, **kwargs: heard.append((name, args, kwargs))
        return object.__getattribute__(self, name)


class Failing(TurnEvents):
    def model_asked(self, turn: TurnReference, *, step: int) -> None:
        raise ValueError("with private text")


def tell(events: TurnEvents, name: str) -> None:
    arguments = CALLS[name]
    positional = [arguments[key] for key in ("prompt", "answer", "end") if key in arguments]
    named = {k: v for k, v in arguments.items() if k not in {"prompt", "answer", "end"}}
    getattr(events, name)(TURN, *positional, **named)


def test_the_list_of_calls_holds_every_event() -> None:
    methods = {name for name, _ in inspect.getmembers(TurnEvents, inspect.isfunction)}
    assert methods == {*CALLS, "flush"}


@pytest.mark.parametrize("name", CALLS)
def test_every_event_reaches_every_listener_as_it_was_told(name: str) -> None:
    first, second, direct = Recorder(), Recorder(), Recorder()
    tell(EventListeners((first, second)), name)
    tell(direct, name)
    assert first.heard == second.heard == direct.heard
    assert len(direct.heard) == 1


@pytest.mark.parametrize("name", CALLS)
def test_nobody_needs_to_listen(name: str) -> None:
    tell(TurnEvents(), name)
    tell(EventListeners(), name)


def test_a_listener_that_fails_fails_neither_the_turn_nor_the_other_listeners() -> None:
    other = Recorder()
    with capture_logs() as logs:
        tell(EventListeners((Failing(), other)), "model_asked")
    assert len(other.heard) == 1
    assert logs == [
        {
            "event": "turn.listener_failed",
            "listener": "Failing",
            "error": "ValueError",
            "log_level": "error",
        }
    ]


class Keeping(TurnEvents):
    def __init__(self, problem: Exception | None = None) -> None:
        self.kept = 0
        self.problem = problem

    async def flush(self, turn: TurnReference) -> None:
        await asyncio.sleep(0)
        if self.problem is not None:
            raise self.problem
        self.kept += 1


async def test_a_flush_waits_for_every_listener_and_no_failure_is_the_turns() -> None:
    failing, keeping = Keeping(ConnectionError("with private text")), Keeping()
    with capture_logs() as logs:
        await EventListeners((failing, keeping, TurnEvents())).flush(TURN)
    assert keeping.kept == 1
    assert [(entry["listener"], entry["error"]) for entry in logs] == [
        ("Keeping", "ConnectionError")
    ]
