"""The thread that reports dead letters and interrupts, whoever found them.

To report a dead letter takes the result backend, the backend's notifications and the queue of
webhooks, each of which may be slow or stand still. Neither the thread that keeps leases nor the
consumer's may wait for that: living workers would lose what they run.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from queue import Empty, SimpleQueue

from clasper_worker.engine.queue.scheduler_types import Burial

logger = logging.getLogger(__name__)

Report = Callable[[Iterable[Burial]], Iterable[Burial]]
"""Tells the callers of dead letters; returns those whose callers know now. May block."""

_Call = tuple[Callable[..., object], tuple[object, ...]]


class DeadLetterThread:
    """Reports on a daemon thread of its own; everything else may be called from any thread.

    A dead letter that could not be reported stays noted in Redis: it is found again, by whichever
    worker looks next, until it was.

    Args:
        report: tells the callers of dead letters.
        reported: called with those whose callers know: nobody finds them any more.
        interrupt: stops jobs that a newer turn of their session interrupts.
    """

    def __init__(
        self,
        report: Report,
        reported: Callable[[Iterable[Burial]], object],
        interrupt: Callable[[Sequence[str]], object],
    ) -> None:
        self._report = report
        self._reported = reported
        self._interrupt = interrupt
        self._queue: SimpleQueue[Burial | _Call | None] = SimpleQueue()
        # Re-entrant: a shutdown's signal handler may come here while it interrupts its own thread.
        self._lock = threading.RLock()
        self._waiting: set[Burial] = set()  # what is found again while it waits, waits once
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; at once if that has begun."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._run, name="clasper-dead-letters", daemon=True
            )
            self._thread.start()

    def close(self, timeout: float) -> None:
        """End, once what waits was reported, or after so many seconds."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)
        self._closing.set()

    def dead_letters(self, buried: Iterable[Burial]) -> None:
        """Report these, unless they wait for that already."""
        with self._lock:
            new = [burial for burial in buried if burial not in self._waiting]
            self._waiting.update(new)
        for burial in new:
            self._queue.put(burial)

    def interrupts(self, jobs: Sequence[str]) -> None:
        """Interrupt these jobs, before dead letters that wait are reported."""
        self.call(self._interrupt, jobs)

    def call(self, function: Callable[..., object], *args: object) -> None:
        """Run something else that may block, before dead letters that wait are reported."""
        self._queue.put((function, args))

    def _run(self) -> None:
        letters: deque[Burial] = deque()
        is_open = True
        while (is_open or letters) and not self._closing.is_set():
            try:
                item = self._queue.get(block=not letters)
            except Empty:
                self._report_one(letters.popleft())
                continue
            if item is None:
                is_open = False
            elif isinstance(item, Burial):
                letters.append(item)
            else:
                _call(*item)

    def _report_one(self, burial: Burial) -> None:
        try:
            known = [one for one in self._report((burial,)) if one.job_id]
            if known:
                self._reported(known)
        except Exception as exc:  # noqa: BLE001 - of Redis, of a backend, or a fault of ours
            # Without its text, which may quote the message.
            logger.warning("dead letter %s: not reported: %s", burial.letter_id, type(exc).__name__)
        finally:
            with self._lock:
                self._waiting.discard(burial)


def _call(function: Callable[..., object], args: tuple[object, ...]) -> None:
    try:
        function(*args)
    except Exception as exc:  # noqa: BLE001 - of Redis, of kombu, or a fault of ours
        logger.warning("what an exchange found was not passed on: %s", type(exc).__name__)
