"""Events that a task sends by its worker's consumer."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from clasper_worker.engine.pool.task_events import TaskEvents


class Hub:
    """Calls what is to be done soon when it is told to."""

    def __init__(self) -> None:
        self.soon: set[Any] = set()

    def call_soon(self, callback: Any) -> None:
        self.soon.add(callback)

    def turn(self) -> None:
        soon, self.soon = self.soon, set()
        for callback in soon:
            callback()


class Consumer:
    """A worker's consumer with its dispatcher of events."""

    def __init__(self, *, enabled: bool = True, groups: frozenset[str] = frozenset()) -> None:
        self.hub = Hub()
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.event_dispatcher: Any = SimpleNamespace(
            enabled=enabled, groups=groups, send=lambda kind, **f: self.sent.append((kind, f))
        )


def test_events_are_sent_by_the_consumers_own_thread_in_their_order() -> None:
    events, consumer = TaskEvents(), Consumer()
    events.attach(consumer)
    for step in (1, 2):
        events.send("task-progress", "job", step=step)
    assert consumer.sent == []
    handed_over = time.time()
    assert len(consumer.hub.soon) == 1  # one wake-up for both
    consumer.hub.turn()
    times = [fields.pop("timestamp") for _, fields in consumer.sent]
    assert times == sorted(times)
    assert times[-1] <= handed_over  # when they were reported, not when they went out
    assert consumer.sent == [
        ("task-progress", {"uuid": "job", "step": 1}),
        ("task-progress", {"uuid": "job", "step": 2}),
    ]


@pytest.mark.parametrize(
    "consumer",
    [Consumer(enabled=False), Consumer(groups=frozenset({"worker"}))],
    ids=["disabled", "no task events"],
)
def test_nothing_is_sent_where_task_events_are_off(consumer: Consumer) -> None:
    events = TaskEvents()
    events.attach(consumer)
    events.send("task-progress", "job")
    assert not consumer.hub.soon
    assert consumer.sent == []


def test_nothing_is_sent_where_nothing_is_consumed_or_no_more_in_a_forked_child() -> None:
    events, consumer = TaskEvents(), Consumer()
    events.send("task-progress", "job")
    events.attach(consumer)
    events.forget()
    events.send("task-progress", "job")
    assert not consumer.hub.soon


def test_events_on_their_way_are_dropped_with_the_connection() -> None:
    events, consumer = TaskEvents(), Consumer()
    events.attach(consumer)
    events.send("task-progress", "job")
    consumer.event_dispatcher = None
    consumer.hub.turn()
    assert consumer.sent == []
