"""The processes that the benchmark starts, and what they take of the machine."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

_STOP_SECONDS = 40.0
_ERROR_MARKS = ('"level": "error"', '"level": "critical"', "Traceback (most recent call last)")


class BenchmarkError(Exception):
    """The benchmark could not be carried out; its text says why."""


def raise_open_files() -> int:
    """Allow this process, and those that it starts, as many open files as it may; say how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return soft


def cpu_seconds(process: psutil.Process) -> float:
    """User and system time of a process with all its threads, and of its children."""
    total = 0.0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):
            times = each.cpu_times()
            total += times.user + times.system
    return total


class Server:
    """One of ``servers.py``, in a process of its own."""

    def __init__(self, kind: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "servers.py"), kind],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.port: int = json.loads(self._process.stdout.readline())["port"]
        self.url = f"http://127.0.0.1:{self.port}"
        self.stats = psutil.Process(self._process.pid)
        self._http = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def configure(self, **values: float) -> None:
        """Set how it behaves, and have it forget what it counted."""
        self._call("POST", "/bench/configure", json.dumps(values))

    def tell(self, what: str, value: Any) -> None:
        """Give it something: what it is to ``notify`` of, or how many ``agents`` it has."""
        self._call("POST", f"/bench/{what}", json.dumps(value))

    def ask(self, what: str) -> Any:
        """Its ``counts``, ``posts``, ``acknowledged`` or ``last``."""
        return json.loads(self._call("GET", f"/bench/{what}"))

    def _call(self, method: str, path: str, body: str | None = None) -> bytes:
        self._http.request(method, path, body)
        answer = self._http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise BenchmarkError(f"the benchmark's server answered {answer.status} to {path}")
        return content

    def stop(self) -> None:
        """End it."""
        self._http.close()
        self._process.kill()
        self._process.communicate()


class Program:
    """A program of the product, in a process of its own.

    Args:
        name: of its log, and what errors call it.
        arguments: of Python.
        environment: all its variables.
        folder: its working directory; its log goes there as well.
    """

    def __init__(
        self, name: str, arguments: Sequence[str], environment: Mapping[str, str], folder: Path
    ) -> None:
        self._name = name
        self._stopping = False
        self._log = folder / f"{name}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *arguments],
                env=environment,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.stats = psutil.Process(self._process.pid)

    def check_alive(self) -> None:
        """Raise if it has ended.

        Raises:
            BenchmarkError: it has; with the end of its log.
        """
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text("utf-8", "replace").splitlines()[-15:])
            raise BenchmarkError(f"{self._name} ended with {self._process.returncode}:\n{tail}")

    def resident_mb(self) -> float:
        """Its resident memory now, in MB (10^6 bytes)."""
        return float(self.stats.memory_info().rss) / 1e6

    def errors(self) -> list[str]:
        """What its log says of errors."""
        lines = self._log.read_text("utf-8", "replace").splitlines()
        return [line[:300] for line in lines if any(mark in line for mark in _ERROR_MARKS)]

    def begin_stop(self) -> None:
        """Have it finish and end (of a worker: warm shutdown)."""
        if self._process.poll() is None and not self._stopping:
            self._stopping = True
            self._process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Have it finish and end, and wait for that; kill it if it does not."""
        if self._process.poll() is not None:
            return
        self.begin_stop()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            for child in self.stats.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Worker(Program):
    """A real ``celery -A clasper_worker worker``.

    Args:
        name: its node name, before the ``@``.
        options: further options of the command.
        environment: all its variables.
        folder: its working directory; its log goes there as well.
        cpu: the CPU that it is kept on, as ``clasper worker --processes`` does with one process
            a CPU; None for any.
    """

    def __init__(
        self,
        name: str,
        options: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        cpu: int | None = None,
    ) -> None:
        self.node = f"{name}@bench"
        command = ["-m", "celery", "-A", "clasper_worker", "worker"]
        if cpu is not None:
            command = ["-m", "clasper_worker", "worker", "--processes", "1", "--cpu", str(cpu)]
        super().__init__(name, [*command, "-n", self.node, *options], environment, folder)


def wait_until_idle(processes: Iterable[psutil.Process], seconds: float = 5.0) -> None:
    """Return when the processes hardly work any more, or after so many seconds."""
    watched = list(processes)
    deadline = time.monotonic() + seconds
    before = sum(map(cpu_seconds, watched))
    while time.monotonic() < deadline:
        time.sleep(0.2)
        now = sum(map(cpu_seconds, watched))
        if now - before <= 0.011:  # a tick of the kernel's clock
            return
        before = now
