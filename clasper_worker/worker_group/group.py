"""Keeps worker processes running, and stops them as one would stop a single worker.

SIGTERM or SIGINT is a warm shutdown: each worker finishes its turns (and hands back the rest after
``worker_soft_shutdown_timeout``). A second one, or SIGQUIT, is a quick one. A process that ends
by itself is started again, later each time; one that keeps ending ends the group with exit code
1, so that whoever runs the group learns of it. Killed outright, the group leaves no worker behind.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import structlog

from clasper_worker.local_stack.guard import Guard
from clasper_worker.local_stack.restart import next_restart

log = structlog.get_logger(__name__)

_USAGE_ERROR = 2  # click's exit code: to start it again would change nothing


class WorkerGroup:
    """A number of worker processes that are run, and stopped, as one.

    Args:
        commands: one command line a process.
        quick_seconds: how long a quick shutdown may take before the processes are killed.
    """

    def __init__(self, commands: Sequence[Sequence[str]], *, quick_seconds: float = 30.0) -> None:
        self._commands = commands
        self._quick_seconds = quick_seconds
        self._running: set[asyncio.subprocess.Process] = set()
        self._stopping = asyncio.Event()
        self._stop_signal = signal.SIGTERM
        self._exit_code = 0

    async def run(self) -> int:
        """Run until stopped; the exit code: 0 if it was asked to stop and every process did."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_stop, signal.SIGTERM)
        loop.add_signal_handler(signal.SIGQUIT, self._ask_to_stop, signal.SIGQUIT)
        with Guard() as guard:
            async with asyncio.TaskGroup() as tasks:
                for command in self._commands:
                    tasks.create_task(self._keep_running(command, guard))
        return self._exit_code

    def _ask_to_stop(self, number: signal.Signals) -> None:
        quick = number == signal.SIGQUIT or self._stopping.is_set()
        self._stop_signal = signal.SIGQUIT if quick else signal.SIGTERM
        if quick:
            loop = asyncio.get_running_loop()
            loop.call_later(self._quick_seconds, self._send_all, signal.SIGKILL)
        self._stopping.set()
        self._send_all(self._stop_signal)

    def _send_all(self, number: signal.Signals) -> None:
        for process in self._running:
            if process.returncode is None:
                process.send_signal(number)

    async def _keep_running(self, command: Sequence[str], guard: Guard) -> None:
        restarts = 0
        while not self._stopping.is_set():
            started = time.monotonic()
            code = await self._run_once(command, guard)
            if self._stopping.is_set():
                self._exit_code = self._exit_code or int(code != 0)
                return
            restart = next_restart(restarts, time.monotonic() - started)
            if restart is None or code == _USAGE_ERROR:
                log.error("worker_group.gave_up", node=command[-1], exit_code=code)
                self._exit_code = code if code == _USAGE_ERROR else 1
                self._ask_to_stop(signal.SIGTERM)
                return
            restarts = restart.number
            log.warning(
                "worker_group.restart",
                node=command[-1],
                exit_code=code,
                attempt=restart.number,
                delay_sec=restart.delay_seconds,
            )
            await self._pause(restart.delay_seconds)

    async def _run_once(self, command: Sequence[str], guard: Guard) -> int:
        # A session of its own, so that a terminal's Ctrl-C reaches the group alone.
        process = await asyncio.create_subprocess_exec(*command, start_new_session=True)
        guard.watch(process.pid)
        self._running.add(process)
        if self._stopping.is_set():  # asked to while it was being started
            process.send_signal(self._stop_signal)
        try:
            return await process.wait()
        finally:
            self._running.discard(process)
            guard.forget(process.pid)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
