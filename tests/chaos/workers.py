"""Processes of workers and Beats: started by a nursery or plainly, signalled, and watched."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from clasper_worker.engine.processes.guard import Guard
from tests.chaos.server_process import ROOT

_STOP_SECONDS = 20.0
PRELOADED = ("clasper_worker.celery", "clasper_worker.tasks")


class Nursery:
    """Starts workers and Beats: by fork from a process that has loaded everything, or plainly.

    Args:
        plain: start ``python -m celery`` each time instead of forking.
        modules: what to load once for all of them.
    """

    def __init__(self, *, plain: bool = False, modules: Sequence[str] = PRELOADED) -> None:
        self._guard = Guard()
        self._plain: dict[int, subprocess.Popen[bytes]] | None = {} if plain else None
        self._codes: dict[int, int] = {}
        self._lock = threading.Lock()  # rows that run side by side share the nursery
        self._process: subprocess.Popen[bytes] | None = None
        if not plain:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.nursery", *modules],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                cwd=ROOT,
            )
            self._read()

    def start(
        self,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        *,
        module: str = "celery",
        errors: Path | None = None,
    ) -> int:
        """Start ``python -m MODULE ARGUMENTS``; its process id, which leads a group of its own.

        Args:
            arguments: of the command line.
            environment: all its variables.
            folder: where it runs.
            log: the file that its output is added to.
            module: what to run.
            errors: the file for standard error, where that is another.
        """
        if self._plain is None:
            start: dict[str, Any] = {"module": module, "arguments": list(arguments)}
            start |= {"folder": str(folder), "environment": dict(environment)}
            start |= {"output": str(log), "errors": str(errors or log)}
            pid = int(self._ask({"start": start})["pid"])
        else:
            with log.open("ab") as output, (errors or log).open("ab") as problems:
                process = subprocess.Popen(
                    [sys.executable, "-m", module, *arguments],
                    env=dict(environment),
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=problems,
                    start_new_session=True,
                )
            pid = process.pid
            self._plain[pid] = process
        self._guard.watch(pid)
        return pid

    def exit_code(self, pid: int) -> int | None:
        """How it ended, negative for a signal; None while it runs."""
        if pid not in self._codes:
            if self._plain is None:
                code = self._ask({"ended": pid})["code"]
            else:
                code = self._plain[pid].poll()
            if code is None:
                return None
            self._codes[pid] = int(code)
            self._guard.forget(pid)
        return self._codes[pid]

    def close(self) -> None:
        """Kill what still runs, and end the nursery."""
        self._guard.close()
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        for process in (self._plain or {}).values():
            process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(command).encode() + b"\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the nursery has ended: see its error above")
        return cast("dict[str, Any]", json.loads(line))


class Process:
    """A worker or a Beat; its name is its own, never that of an earlier one."""

    def __init__(self, name: str, pid: int, nursery: Nursery, log: Path) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self.told_to_end = False
        self._nursery = nursery

    @property
    def running(self) -> bool:
        """Whether the process is there; frozen counts as running."""
        return self._nursery.exit_code(self.pid) is None

    @property
    def exit_code(self) -> int | None:
        """How it ended."""
        return self._nursery.exit_code(self.pid)

    def send(self, number: signal.Signals) -> float:
        """Send a signal to the process; returns when."""
        if number not in {signal.SIGSTOP, signal.SIGCONT}:
            self.told_to_end = True
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return time.monotonic()

    def wait(self, seconds: float = _STOP_SECONDS) -> bool:
        """Wait for its end; False if it did not come in time."""
        return wait_until(lambda: not self.running, seconds)

    def last_lines(self, count: int = 12) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text("utf-8", "replace").splitlines()[-count:])


def wait_until(condition: Callable[[], object], seconds: float, pause: float = 0.02) -> bool:
    """Poll until a condition holds; False if it did not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(pause)
    return True
