"""One process of the stack: what to run, and a running one with its output line by line."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Self

from clasper_worker.devkit.local_stack.probes import Probe
from clasper_worker.engine.processes.guard import Guard

# A line longer than this is shown in pieces rather than held in memory.
_LINE_LIMIT = 64 * 1024
_DRAIN_SECONDS = 1.0


class Layer(IntEnum):
    """Who leans on whom: started upwards from the broker, stopped downwards from the front."""

    BROKER = 0
    BACKEND = 1
    MODEL = 2
    WORKER = 3
    FRONT = 4


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """A process to run.

    Attributes:
        name: short, for the log's prefix.
        command: program and arguments.
        layer: its place in the order of stops.
        environment: variables on top of this process's own; may hold secrets.
        ready: tells when it can be used; None: as soon as it runs.
        stop: signals to end it with, each with the seconds that it has to obey before the next
            is sent; after the last one it is killed.
    """

    name: str
    command: tuple[str, ...]
    layer: Layer
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ready: Probe | None = None
    stop: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 10.0),)


class RunningProcess:
    """A started process, leader of its own session, so that a terminal's Ctrl-C is ours alone."""

    def __init__(
        self, process: asyncio.subprocess.Process, guard: Guard, output: asyncio.Task[None]
    ) -> None:
        self._process = process
        self._guard = guard
        self._output = output

    @classmethod
    async def start(cls, spec: ProcessSpec, on_line: Callable[[str], None], guard: Guard) -> Self:
        """Start a process; ``on_line`` gets each line of its output and errors, in order.

        Raises:
            OSError: it cannot be started.
        """
        # A pipe of our own, not asyncio's: the end of a process must not wait for a grandchild
        # that still holds its output open.
        readable, writable = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.command,
                stdin=subprocess.DEVNULL,
                stdout=writable,
                stderr=writable,
                env={**os.environ, **spec.environment},
                start_new_session=True,
            )
        except BaseException:
            os.close(readable)
            raise
        finally:
            os.close(writable)
        guard.watch(process.pid)
        return cls(process, guard, asyncio.create_task(_read_lines(readable, on_line)))

    @property
    def pid(self) -> int:
        """Its process id, which is its group's and session's too."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.returncode is not None

    async def wait(self) -> int:
        """Wait until it has ended and its output is read; its exit code, or minus its signal.

        What it started and left behind is killed.
        """
        code = await self._process.wait()
        self._kill_group()
        self._guard.forget(self.pid)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._output), _DRAIN_SECONDS)
        self._output.cancel()
        return code

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the process alone; nothing happens where it has ended."""
        if not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def kill(self) -> None:
        """End it and all that it started, at once."""
        if not self.ended:
            self._kill_group()

    def _kill_group(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


async def _read_lines(descriptor: int, on_line: Callable[[str], None]) -> None:
    """Hand on each line that arrives on a pipe until its end, then close it."""
    reader = asyncio.StreamReader()
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    rest = b""
    try:
        while chunk := await reader.read(_LINE_LIMIT):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                on_line(_text(line))
            if len(rest) > _LINE_LIMIT:
                on_line(_text(rest))
                rest = b""
        if rest:
            on_line(_text(rest))
    finally:
        transport.close()


def _text(line: bytes) -> str:
    return line.decode("utf-8", "replace").rstrip("\r")
