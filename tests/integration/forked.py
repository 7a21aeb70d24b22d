"""Processes that a nursery has forked, as `subprocess` shows its own."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from tests.chaos.workers import Nursery


class Forked:
    """A running ``python -m MODULE ARGUMENTS``, with the methods of ``subprocess.Popen``."""

    def __init__(
        self,
        nursery: Nursery,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path,
        log: Path,
        errors: Path | None = None,
    ) -> None:
        module, *arguments = command
        self._nursery = nursery
        self._command = command
        self.pid = nursery.start(arguments, environment, folder, log, module=module, errors=errors)

    @property
    def returncode(self) -> int | None:
        return self.poll()

    def poll(self) -> int | None:
        return self._nursery.exit_code(self.pid)

    def wait(self, timeout: float | None = None) -> int:
        deadline = time.monotonic() + (float("inf") if timeout is None else timeout)
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(list(self._command), timeout or 0.0)
            time.sleep(0.01)
        return code

    def send_signal(self, number: signal.Signals) -> None:
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def run(
    nursery: Nursery, command: Sequence[str], environment: Mapping[str, str], folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` this command to its end."""
    output, errors = folder / "output", folder / "errors"
    for path in (output, errors):
        path.write_bytes(b"")
    code = Forked(nursery, command, environment, folder, output, errors).wait(120)
    return subprocess.CompletedProcess(
        list(command), code, output.read_text("utf-8"), errors.read_text("utf-8")
    )
