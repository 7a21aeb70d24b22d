"""Events of a task from within it, sent as Celery's own: by the worker's consumer, in batches.

`celery.Task.send_event` publishes on a connection of its own and waits for it, which no event loop
may; and it does so also where nobody switched the worker's events on.
"""

from __future__ import annotations

import os
import time
from typing import Any

from clasper_worker.engine.pool.consumer_thread import ConsumerThread


class TaskEvents:
    """Sends events by the consumer of this process."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Send no more: there is no consumer, as in a forked child."""
        self._consumer: Any = None
        self._thread = ConsumerThread()

    def attach(self, consumer: Any) -> None:
        """Send by this one from now on."""
        self._consumer = consumer

    def send(self, kind: str, job_id: str, **fields: Any) -> None:
        """Send an event of a task soon. From any thread; it never waits.

        Nothing is sent where this process consumes no messages, or its worker sends no task events
        (``-E``, or ``celery control enable_events``).

        Args:
            kind: the event's type, such as ``task-progress``.
            job_id: the task's id.
            **fields: plain data, without people's text.
        """
        consumer = self._consumer
        if _dispatcher(consumer) is None:
            return
        if consumer.hub is not None:
            self._thread.attach(consumer.hub)
        # Its true time: other events of the task may overtake it on their way.
        event = {"timestamp": time.time(), **fields, "uuid": job_id}
        self._thread.post(_send, consumer, kind, event)


def _dispatcher(consumer: Any) -> Any:
    dispatcher = getattr(consumer, "event_dispatcher", None)  # each connection has its own
    if dispatcher is None or not dispatcher.enabled:
        return None
    groups = dispatcher.groups  # none: all of them
    return dispatcher if not groups or "task" in groups else None


def _send(consumer: Any, kind: str, fields: dict[str, Any]) -> None:
    dispatcher = _dispatcher(consumer)
    if dispatcher is not None:
        dispatcher.send(kind, **fields)


task_events = TaskEvents()
"""Those of this process."""

os.register_at_fork(after_in_child=task_events.forget)
