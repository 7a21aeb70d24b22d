"""A few daemon threads for work that blocks: result writes, and tasks that are not coroutines."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ThreadCrew:
    """Runs functions in threads, started as they are needed.

    Unlike an executor of ``concurrent.futures``, whose threads the interpreter waits for when it
    exits, these are daemon threads: a function that hangs cannot hold up a quick shutdown.

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
        self._lock = threading.Lock()
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
            except Exception as exc:  # noqa: BLE001 - it is the caller's
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
            except Exception:  # a thread that ends would take the others' work with it
                logger.exception("%r failed", function)
            del work, function, args  # do not keep a finished job alive while waiting for the next
            with self._lock:
                self._unclaimed -= 1


def _unless_done(
    future: asyncio.Future[Any], settle: Callable[[Any], object], outcome: object
) -> None:
    if not future.done():  # cancelled
        settle(outcome)
