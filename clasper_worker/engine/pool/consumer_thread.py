"""Getting back to the thread on which Celery consumes.

Celery's bookkeeping of requests and kombu's channels are made for one thread. Every report of the
pool (accepted, timed out, done) is therefore made on the consumer's: acknowledgements go out on
its channel in order, and a report cannot run into a revocation or an ``inspect`` half-way.

With Redis the consumer turns kombu's ``Hub``, whose ``call_soon`` may be called from any thread
and wakes it. One promise is kept for all reports, so that a batch of them costs one wake-up.
Transports without a hub (``memory://``) have no way into their thread; there, as Celery's own
threads pool does, reports are made from the thread that has them, one at a time.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from kombu.asynchronous import Hub
from vine import promise

logger = logging.getLogger(__name__)


class ConsumerThread:
    """Runs functions on the consumer's thread, in the order in which they were posted."""

    def __init__(self) -> None:
        self._hub: Hub | None = None
        self._posts: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._drain_promise = promise(self.drain)
        # Re-entrant: a signal handler may report while the thread it interrupted is reporting.
        self.lock = threading.RLock()

    def attach(self, hub: Hub) -> None:
        """Use this hub from now on; called on each connection to the broker."""
        self._hub = hub
        if self._posts:
            hub.call_soon(self._drain_promise)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Have ``function(*args)`` run there soon. From any thread."""
        self.post_all(function, [args])

    def post_all(self, function: Callable[..., object], calls: Iterable[tuple[Any, ...]]) -> None:
        """Have ``function`` run there soon with the arguments of each call, for one wake-up."""
        self._posts.extend((function, args) for args in calls)
        if self._hub is None:
            self.drain()
        else:
            self._hub.call_soon(self._drain_promise)

    def drain(self) -> None:
        """Run what was posted, here and now. One that fails does not stop the others."""
        with self.lock:
            try:
                while self._posts:
                    function, args = self._posts.popleft()
                    try:
                        function(*args)
                    except Exception:
                        logger.exception("reporting a task to Celery failed")
            finally:  # a WorkerShutdown passes through, the rest is for the next turn
                if self._posts and self._hub is not None:
                    self._hub.call_soon(self._drain_promise)

    def turn(self) -> None:
        """Do the consumer's part while its own loop stands still, as it does in a shutdown.

        Runs what was posted, the hub's timers (heartbeats) and the acknowledgements that the
        reports led to. Only on the consumer's thread.
        """
        self.drain()
        if self._hub is None:
            return
        try:
            self._hub.fire_timers()
            _run_acknowledgements(self._hub)
        except Exception:
            logger.warning("a timer or acknowledgement failed during shutdown", exc_info=True)


def _run_acknowledgements(hub: Hub) -> None:
    try:
        # Celery's own, for the same situation in its prefork pool.
        from celery.concurrency.prefork import _run_ready_callbacks  # noqa: PLC0415
    except ImportError:
        return  # the hub runs them when it is closed: later, but in time
    _run_ready_callbacks(hub)
