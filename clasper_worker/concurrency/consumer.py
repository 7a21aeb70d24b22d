"""Celery's consumer, which sends monitoring events in batches.

Celery buffers the events of tasks, but empties the buffer at each turn of its loop, so that each
task costs a publication of its own. Plugged in by Celery's setting ``worker_consumer``.
"""

from __future__ import annotations

import threading
from typing import Any

from celery.worker.consumer import Consumer
from vine import promise


class BatchingConsumer(Consumer):
    """Sends buffered task events up to ``event_delay`` seconds late, and together.

    Attributes:
        event_delay: seconds; each event still has the time at which it happened.
        event_batch: how many are sent together at most, and then at once. Celery's own limit of
            24 is reached several times in that delay.
    """

    event_delay = 0.2
    event_batch = 200
    _thread: int | None = None  # on which it consumes

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._flush_timer: Any = None
        self._thread = threading.get_ident()
        super().__init__(*args, **kwargs)

    def on_send_event_buffered(self) -> None:
        """Send what is buffered soon, unless that is to be done already. From any thread."""
        if self.hub is None:
            return
        if self._thread not in {None, threading.get_ident()}:
            # Of Celery's threads pool, say: the hub's timers are the consumer's thread's alone.
            if self._flush_timer is None:
                self.hub.call_soon(promise(self.on_send_event_buffered))
            return
        self.event_dispatcher.buffer_limit = self.event_batch  # each connection has a new one
        # Celery cancels timers when it loses the broker.
        if self._flush_timer is None or self._flush_timer.canceled:
            self._flush_timer = self.hub.call_later(self.event_delay, self._flush_buffered)

    def shutdown(self) -> None:
        """Send what is buffered, then shut down."""
        self._flush_buffered()
        super().shutdown()

    def _flush_buffered(self) -> None:
        self._flush_timer = None
        self._flush_events()
