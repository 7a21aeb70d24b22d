"""A turn's progress, as a receiver of Celery's events gets it from a real worker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from celery import Celery

from tests.integration.turn.conftest import processes, slow_model  # noqa: F401 - fixtures
from tests.waiting import until

pytestmark = pytest.mark.integration
Event = dict[str, Any]


@contextmanager
def received(app: Celery) -> Iterator[Callable[[str], list[Event]]]:
    """Receive all events meanwhile; gives a function from a type to those that have come."""
    came: list[Event] = []
    stop = threading.Event()
    with app.connection_for_read() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": came.append})

        def receive() -> None:
            while not stop.is_set():
                try:
                    receiver.capture(limit=None, timeout=0.2, wakeup=False)
                except TimeoutError:
                    continue

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        try:
            yield lambda kind: [event for event in came if event["type"] == kind]
        finally:
            stop.set()
            thread.join(10)


def send(app: Celery, message: str, **fields: Any) -> Any:
    request = {"user_id": "progress", "message": message, "task_title": "Progress", **fields}
    return app.send_task("clasper.send", kwargs=request, queue="clasper")


def test_a_turn_with_a_tool_is_followed_step_by_step(processes: Any) -> None:  # noqa: F811 - the fixture
    with processes.worker("progress"), received(processes.app) as events:
        until(lambda: events("worker-heartbeat"), "the receiver hears the worker")
        turn = send(processes.app, "List my tasks, please: a secret word")
        turn.get(timeout=60)

        def progress() -> list[Event]:
            return [event for event in events("task-progress") if event["uuid"] == turn.id]

        until(lambda: len(progress()) >= 3, "its progress has come")
        came = [(one["phase"], one["step"], one.get("tool")) for one in progress()]
        assert came == [("model", 1, None), ("tool", 1, "list_tasks"), ("model", 2, None)]
        assert "secret" not in repr(progress())
        ended = lambda: [e for e in events("task-succeeded") if e["uuid"] == turn.id]  # noqa: E731
        until(ended, "its end has come")
        assert progress()[-1]["timestamp"] < ended()[0]["timestamp"]  # type: ignore[no-untyped-call]


def test_a_turn_that_waits_for_its_session_says_how_many_are_before_it(
    processes: Any,  # noqa: F811 - the fixture
    slow_model: dict[str, str],  # noqa: F811 - the fixture
) -> None:
    with processes.worker("busy", **slow_model), received(processes.app) as events:
        until(lambda: events("worker-heartbeat"), "the receiver hears the worker")
        turns = [send(processes.app, "Hello", agent_role="lane") for _ in range(3)]

        def queued() -> dict[str, tuple[str, int]]:
            return {
                event["uuid"]: (event["reason"], event["ahead"])
                for event in events("task-progress")
                if event["phase"] == "queued"
            }

        until(lambda: len(queued()) == 2, "both that wait are told of")
        assert queued() == {turns[1].id: ("session", 1), turns[2].id: ("session", 2)}
        for turn in turns:
            processes.app.control.revoke(turn.id, terminate=True)


def test_a_worker_without_task_events_sends_no_progress(processes: Any) -> None:  # noqa: F811 - the fixture
    command = (
        *("celery", "-A", "clasper_worker", "worker", "-n", "silent@test"),
        *("--", "worker.send_task_events=false"),
    )
    with processes.running("silent", *command), received(processes.app) as events:
        until(lambda: events("worker-heartbeat"), "the receiver hears the worker")
        first = send(processes.app, "List my tasks")
        first.get(timeout=60)
        switch = processes.app.control.enable_events
        until(lambda: switch(destination=["silent@test"], reply=True, timeout=10), "events are on")
        second = send(processes.app, "List my tasks")
        second.get(timeout=60)
        until(
            lambda: [one for one in events("task-progress") if one["uuid"] == second.id],
            "what runs when they are on is told",
        )
        assert not [one for one in events("task-progress") if one["uuid"] == first.id]
