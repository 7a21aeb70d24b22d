"""Keeps worker processes running, and stops them as one would stop a single worker.

SIGTERM or SIGINT is a warm shutdown: each worker finishes its turns (and hands back the rest after
``worker_soft_shutdown_timeout``). A second one, or SIGQUIT, is a quick one. A process that ends
by itself is started again, later each time; one that keeps ending ends the group with exit code
1, so that whoever runs the group learns of it. Killed outright, the group leaves no worker behind.
"""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Sequence

import structlog

from clasper_worker.engine.pool.setup import DEFAULT_CONCURRENCY
from clasper_worker.engine.processes.guard import Guard
from clasper_worker.engine.processes.restart import next_restart

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


DEFAULT_NODE = "clasper@%h"
_NODE_OPTIONS = ("-n", "--hostname")


def split_node(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Take the node name (``-n``, ``--hostname``) out of the worker's options.

    Returns:
        The name, ``clasper@%h`` where none is given, and the other options in their order.
    """
    node, rest = DEFAULT_NODE, []
    left = iter(options)
    for option in left:
        name, equals, value = option.partition("=")
        if name in _NODE_OPTIONS:
            node = value if equals else next(left, DEFAULT_NODE)
        elif option.startswith("-n") and not option.startswith("--"):
            node = option[2:]
        else:
            rest.append(option)
    return node, tuple(rest)


def unique_node() -> str:
    """A node name that no other worker has, on this host or on one that has the same name.

    Remote control and monitors know workers by their names: of two with the same one, either's
    answers are taken for the other's.
    """
    name, _, host = DEFAULT_NODE.partition("@")
    return f"{name}-{secrets.token_hex(4)}@{host}"


def own_node(options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """As `split_node`, with a unique name where none is given."""
    node, rest = split_node(options)
    return (unique_node() if len(rest) == len(options) else node), rest


def turns_in_flight(options: Sequence[str]) -> int | None:
    """``-c`` as the options give it, else the asyncio pool's default; None for another pool."""
    left = iter(options)
    found: int | None = DEFAULT_CONCURRENCY
    for option in left:
        name, equals, value = option.partition("=")
        if name in ("-P", "--pool") or (option.startswith("-P") and len(option) > 2):
            return None
        if name in ("-c", "--concurrency"):
            value = value if equals else next(left, "")
        elif option.startswith("-c") and not option.startswith("--"):
            value = option[2:]
        else:
            continue
        found = int(value) if value.isdigit() else None
    return found


def numbered(node: str, number: int) -> str:
    """The node name of one process of a group: ``clasper@%h`` is ``clasper-2@%h``."""
    name, at, host = node.partition("@")
    return f"{name}-{number}{at}{host}" if at else f"{name}-{number}@%h"


def worker_commands(
    processes: int, options: Sequence[str], cpus: Sequence[int] = ()
) -> tuple[tuple[str, ...], ...]:
    """One command a process: ``clasper worker`` for a single process, each under its own name.

    Args:
        processes: how many.
        options: the worker's.
        cpus: the CPUs to share out among them. Each process is kept on one if there are as many
            as processes; else they are left to the system.
    """
    node, rest = own_node(options)
    single = (sys.executable, "-m", "clasper_worker", "worker", "--processes", "1")
    places = [("--cpu", str(cpu)) for cpu in cpus] if len(cpus) == processes else [()] * processes
    return tuple(
        (*single, *place, *rest, "-n", numbered(node, number))
        for number, place in enumerate(places, 1)
    )
