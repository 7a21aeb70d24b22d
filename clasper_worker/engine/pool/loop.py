"""One asyncio event loop in a thread of its own, started and closed from other threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterable

from clasper_worker.engine.pool.loop_local import close_resources
from clasper_worker.engine.pool.vital import vital

try:
    import uvloop

    _new_event_loop: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
except ImportError:  # uvloop is not made for this platform
    _new_event_loop = asyncio.new_event_loop

logger = logging.getLogger(__name__)

CLOSE_TIMEOUT = 5.0
"""Seconds that everything left on a loop gets to end when the loop is closed."""


class LoopThread:
    """An event loop (uvloop where available) that runs in a daemon thread until closed.

    A daemon thread, so that a coroutine that will not end cannot keep the process alive;
    whoever starts one calls :meth:`close`.

    Args:
        name: the thread's name, as seen in stack dumps.

    Attributes:
        loop: the event loop; from other threads only ``call_soon_threadsafe`` is safe.
    """

    def __init__(self, name: str = "clasper-loop") -> None:
        self.loop = _new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._closing = threading.Lock()
        self._thread.start()

    @property
    def implementation(self) -> str:
        """The event loop's package: ``uvloop`` or ``asyncio``."""
        return type(self.loop).__module__.partition(".")[0]

    def is_alive(self) -> bool:
        """Whether the loop still runs."""
        return self._thread.is_alive()

    def is_current(self) -> bool:
        """Whether the caller is on the loop's own thread, where blocking would be for ever."""
        return threading.get_ident() == self._thread.ident

    def close(self, timeout: float = CLOSE_TIMEOUT) -> None:
        """Cancel what runs, close the loop's resources, stop the thread. Safe to call again.

        Args:
            timeout: seconds after which a coroutine that ignores its cancellation is left behind.
        """
        # Non-blocking: a signal handler may close while the thread it interrupted is closing.
        if self.is_current() or not self._closing.acquire(blocking=False):
            return
        if not self._thread.is_alive():
            return
        self.loop.call_soon_threadsafe(self._begin_close, timeout)
        self._thread.join(timeout + 1.0)
        if self._thread.is_alive():
            logger.warning("event loop did not stop within %.0f s; leaving it behind", timeout)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            with vital("the event loop"):
                self.loop.run_forever()
                if not self._closing.locked():
                    raise RuntimeError("the event loop was stopped by what it ran")
        finally:
            self.loop.close()

    def _begin_close(self, timeout: float) -> None:
        closing = self.loop.create_task(self._wind_up(timeout))
        closing.add_done_callback(lambda _: self.loop.stop())

    async def _wind_up(self, budget: float) -> None:
        # What has been cancelled before is cleaning up: a second cancellation would cut that off.
        await self._wait_for([task for task in _others() if task.cancelling()], budget * 0.4)
        await self._cancel(_others(), budget * 0.2)
        await close_resources(budget * 0.2)
        # Closing resources may have left tasks of its own.
        await self._cancel(_others(), budget * 0.1)
        try:
            async with asyncio.timeout(budget * 0.1):
                await self.loop.shutdown_asyncgens()
        except TimeoutError:
            logger.warning("async generators did not close in time")

    async def _cancel(self, tasks: Iterable[asyncio.Task[object]], budget: float) -> None:
        tasks = list(tasks)
        for task in tasks:
            task.cancel()
        for task in await self._wait_for(tasks, budget):
            logger.warning("task %r ignored its cancellation", task.get_name())

    @staticmethod
    async def _wait_for(
        tasks: Iterable[asyncio.Task[object]], budget: float
    ) -> set[asyncio.Task[object]]:
        pending = set(tasks)
        if not pending:
            return pending
        done, pending = await asyncio.wait(pending, timeout=budget)
        for task in done:
            if not task.cancelled():
                task.exception()  # mark it as seen: the process is going, nobody else will look
        return pending


def _others() -> list[asyncio.Task[object]]:
    this = asyncio.current_task()
    return [task for task in asyncio.all_tasks() if task is not this]
