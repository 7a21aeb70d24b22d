"""Daemon threads for work that blocks: result writes, and tasks that are not coroutines.

Unlike an executor of ``concurrent.futures``, whose threads the interpreter waits for when it exits,
these are daemon threads: a function that hangs cannot hold up a quick shutdown.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from clasper_worker.engine.pool.vital import vital

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ThreadCrew:
    """Runs functions in threads, started as they are needed.

    Args:
        name: prefix of the threads' names.
        size: how many threads there may be; further work waits.
    """

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._queue: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = (
            SimpleQueue()
        )
        # Re-entrant: a shutdown's signal handler may come here while it interrupts its own thread.
        self._lock = threading.RLock()
        self._threads: list[threading.Thread] = []
        self._unclaimed = 0  # work handed in, less the threads that are free to take it

    def __len__(self) -> int:
        return len(self._threads)

    def submit(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` in one of the threads. It handles its own errors."""
        with self._lock:
            self._unclaimed += 1
            if self._unclaimed > 0 and len(self._threads) < self._size:
                self._unclaimed -= 1
                name = f"{self._name}-{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        self._queue.put((function, args))

    async def call(self, function: Callable[..., T], *args: Any) -> T:
        """Run ``function(*args)`` in one of the threads, and wait without blocking the loop.

        Cancelling the wait does not stop the function.

        Raises:
            Exception: whatever the function raised.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def work() -> None:
            try:
                settle, outcome = future.set_result, function(*args)
            except BaseException as exc:  # noqa: BLE001 - it is the caller's
                settle, outcome = future.set_exception, exc  # type: ignore[assignment]
            with suppress(RuntimeError):  # the loop was closed meanwhile: nobody waits
                loop.call_soon_threadsafe(_unless_done, future, settle, outcome)

        self.submit(work)
        return await future

    def close(self, timeout: float) -> None:
        """Let the threads finish what was handed in, waiting ``timeout`` seconds for each."""
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(timeout)

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            function, args = work
            try:
                function(*args)
            except BaseException:  # a thread that ends would take the others' work with it
                logger.exception("%r failed", function)
            del work, function, args  # do not keep a finished job alive while waiting for the next
            with self._lock:
                self._unclaimed -= 1


class BatchThread(Generic[T]):
    """One daemon thread that works on all that has come in since it last did, together.

    What comes in while it is idle is worked on at once; after that it lets at least ``interval``
    seconds pass from one batch to the next. Waking a thread and sending to Redis cost much more
    than an item does, so under load a batch's few dozen items cost little more than one.

    Args:
        name: the thread's name.
        work: called with a batch; what it returns is handed in again with the next batch, and
            after ``retry_after`` seconds at the latest.
        interval: seconds.
        retry_after: seconds.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], list[T]],
        interval: float,
        retry_after: float = 1.0,
    ) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self._retry_after = retry_after
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        # Re-entrant: a shutdown's signal handler may come here while it interrupts its own thread.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None

    def __len__(self) -> int:
        return int(self._thread is not None)

    def put(self, item: T) -> None:
        """Hand in an item. From any thread."""
        if self._thread is None:
            with self._lock:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    thread.start()
                    self._thread = thread
        self._queue.put(item)

    def close(self, timeout: float) -> None:
        """Let the thread work on what was handed in, waiting for it ``timeout`` seconds."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self) -> None:
        with vital(self._name):
            self._work_on()

    def _work_on(self) -> None:
        again: list[T] = []
        is_open, next_batch = True, 0.0
        while is_open:
            items, again = again, []
            try:
                first = self._queue.get(timeout=self._retry_after if items else None)
            except Empty:
                pass
            else:
                time.sleep(max(0.0, next_batch - time.monotonic()))
                is_open = self._take(first, items)
            next_batch = time.monotonic() + self._interval
            if items:
                try:
                    again = self._work(items)
                except Exception:  # whose items they are knows better what to do than to repeat
                    logger.exception("%s failed", self._name)
            del items  # do not keep finished items alive while waiting for the next

    def _take(self, first: T | None, items: list[T]) -> bool:
        """Add what has come in to the items; False if the end has."""
        item = first
        while item is not None:
            items.append(item)
            try:
                item = self._queue.get_nowait()
            except Empty:
                return True
        return False


def _unless_done(
    future: asyncio.Future[Any], settle: Callable[[Any], object], outcome: object
) -> None:
    if not future.done():  # cancelled
        settle(outcome)
