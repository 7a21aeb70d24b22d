"""One process of the stack, kept running: started, watched until ready, restarted, ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Iterable
from typing import Any, Protocol

from clasper_worker.devkit.local_stack.process import ProcessSpec, RunningProcess
from clasper_worker.engine.processes.guard import Guard
from clasper_worker.engine.processes.restart import RESTART_LIMIT, next_restart
from clasper_worker.errors import StackError

_POLL_SECONDS = 0.1


class Log(Protocol):
    """Where the stack's output goes."""

    def child(self, name: str, line: str) -> None:
        """One line that a process wrote."""
        ...

    def say(self, text: str) -> None:
        """One line of the stack itself."""
        ...


class Child:
    """A process that is started again when it ends on its own.

    Attributes:
        spec: what runs.
        ready: set once its probe has said so for the first time.
        stopping: set it to end the process for good.
        forced: set it to end the process without waiting for it.
    """

    def __init__(self, spec: ProcessSpec, log: Log, guard: Guard, *, start_seconds: float) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self.stopping = asyncio.Event()
        self.forced = asyncio.Event()
        self._log = log
        self._guard = guard
        self._start_seconds = start_seconds

    async def keep_running(self) -> None:
        """Run the process until ``stopping`` is set and it has ended.

        Raises:
            StackError: it could not be started, ended before it was ready, was not ready in
                time, or ended more often than the restart policy allows.
        """
        restarts = 0
        while not self.stopping.is_set():
            began = time.monotonic()
            ending = _describe_end(await self._run_once())
            if self.stopping.is_set():
                return
            if not self.ready.is_set():
                raise StackError(
                    f"{self.spec.name} {ending} before it was ready; see its log above."
                )
            restart = next_restart(restarts, time.monotonic() - began)
            if restart is None:
                raise StackError(f"{self.spec.name} {ending} again after {RESTART_LIMIT} restarts.")
            restarts = restart.number
            self._log.say(
                f"{self.spec.name} {ending}; starting it again ({restarts} of {RESTART_LIMIT})"
            )
            await first_of((), self.stopping, seconds=restart.delay_seconds)

    async def _run_once(self) -> int:
        try:
            process = await RunningProcess.start(self.spec, self._on_line, self._guard)
        except OSError as exc:
            raise StackError(
                f"{self.spec.name} cannot be started: {exc.strerror} ({self.spec.command[0]})."
            ) from exc
        ended = asyncio.create_task(process.wait())
        ready = asyncio.create_task(self._watch_until_ready(process))
        try:
            await first_of((ended, ready), self.stopping)
            if ready.done():
                ready.result()
                await first_of((ended,), self.stopping)
            if not ended.done():
                await self._end(process, ended)
        finally:
            ready.cancel()
            process.kill()
            code = await ended
        return code

    async def _watch_until_ready(self, process: RunningProcess) -> None:
        try:
            async with asyncio.timeout(self._start_seconds):
                # Polled: a server in another process has no event to wait for.
                while self.spec.ready and not await self.spec.ready(process.pid):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError:
            raise StackError(
                f"{self.spec.name} was not ready within {self._start_seconds:g} seconds; "
                f"see its log above."
            ) from None
        if not process.ended:  # else it was a stranger on its port that answered
            self.ready.set()

    async def _end(self, process: RunningProcess, ended: asyncio.Task[int]) -> None:
        """Send the stop signals one after the other, each with its time; then kill."""
        for number, seconds in self.spec.stop:
            process.send(number)
            await first_of((ended,), self.forced, seconds=seconds)
            if ended.done() or self.forced.is_set():
                return
        self._log.say(f"{self.spec.name} does not stop; killing it")

    def _on_line(self, line: str) -> None:
        self._log.child(self.spec.name, line)


async def first_of(
    tasks: Iterable[asyncio.Future[Any]], *events: asyncio.Event, seconds: float | None = None
) -> None:
    """Return when one of the tasks has ended, an event is set, or the time is over.

    The tasks are left as they are: neither cancelled nor asked for their outcome.
    """
    waiters = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait((*tasks, *waiters), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for waiter in waiters:
            waiter.cancel()


def _describe_end(code: int) -> str:
    """What an exit code says, for people: negative ones are signals."""
    if code >= 0:
        return f"ended by itself (exit code {code})"
    with contextlib.suppress(ValueError):
        return f"was killed ({signal.Signals(-code).name})"
    return f"was killed (signal {-code})"
