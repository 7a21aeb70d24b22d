"""Starts the stack's processes and stops them in the right order.

Not honcho's Manager, which signals every process at the same moment: Redis would be gone under a
worker that is still finishing its turns. Here the front (shim, Beat, Flower) stops first, then
the worker, then the servers that it uses, Redis last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from clasper_worker.devkit.local_stack.child import Child, Log, first_of
from clasper_worker.devkit.local_stack.process import Layer, ProcessSpec
from clasper_worker.engine.processes.guard import Guard

_START_SECONDS = 60.0


class Supervisor:
    """Runs processes until it is asked to stop or one of them cannot be kept running.

    Args:
        specs: what to run.
        log: where their output and ours goes.
        guard: ends them if this process is killed.
        start_seconds: how long a process may take to be ready.
    """

    def __init__(
        self,
        specs: Sequence[ProcessSpec],
        log: Log,
        guard: Guard,
        *,
        start_seconds: float = _START_SECONDS,
    ) -> None:
        self._log = log
        self._stop_asked = asyncio.Event()
        self._children = [Child(spec, log, guard, start_seconds=start_seconds) for spec in specs]
        self._tasks: dict[Child, asyncio.Task[None]] = {}

    def ask_to_stop(self) -> None:
        """Stop in order; asked again: kill everything at once."""
        if not self._stop_asked.is_set():
            self._log.say("stopping; press Ctrl-C again to stop at once")
            self._stop_asked.set()
            return
        self._log.say("stopping at once")
        for child in self._children:
            child.forced.set()

    async def run(self, on_ready: Callable[[], None]) -> None:
        """Start everything, call ``on_ready``, and return after a stop that was asked for.

        Raises:
            StackError: a process did not start, or ended too often; all are stopped by then.
        """
        try:
            await self._start()
            if not self._stop_asked.is_set():
                on_ready()
                await first_of(self._tasks.values(), self._stop_asked)
            self._raise_failure()
        finally:
            await self._stop()

    async def _start(self) -> None:
        """Start the broker, and once it is ready all others, which need only it to begin."""
        broker = [child for child in self._children if child.spec.layer is Layer.BROKER]
        others = [child for child in self._children if child.spec.layer is not Layer.BROKER]
        for group in (broker, others):
            for child in group:
                self._tasks[child] = asyncio.create_task(child.keep_running())
            ready = asyncio.create_task(_all_ready(group))
            await first_of((ready, *self._tasks.values()), self._stop_asked)
            ready.cancel()
            self._raise_failure()
            if self._stop_asked.is_set():
                return

    async def _stop(self) -> None:
        """Stop layer after layer, from the front to the broker."""
        for layer in sorted(Layer, reverse=True):
            tasks = []
            for child, task in self._tasks.items():
                if child.spec.layer is layer:
                    child.stopping.set()
                    tasks.append(task)
            await asyncio.gather(*tasks, return_exceptions=True)

    def _raise_failure(self) -> None:
        for task in self._tasks.values():
            if task.done():
                task.result()


async def _all_ready(children: Sequence[Child]) -> None:
    for child in children:
        await child.ready.wait()
