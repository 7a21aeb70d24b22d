"""A real ``clasper serve`` of the benchmark."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from typing import Self

import psutil
from processes import BenchmarkError, cpu_seconds
from rig import Rig

from clasper_worker.devkit.local_stack.ports import PortReservations


class ShimProcess:
    """The shim, in a process of its own.

    Args:
        rig: what it stands on.
    """

    def __init__(self, rig: Rig) -> None:
        with PortReservations() as ports:
            self.port = ports.choose(0, required=False, purpose="the shim")
        self._rig = rig
        self._log = rig.folder / "shim.log"

    def start(self) -> None:
        """Start it, and wait until it listens.

        Raises:
            BenchmarkError: it does not.
        """
        command = [sys.executable, "-m", "clasper_worker", "serve", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                env=self._rig.environment(CLASPER_LOG_LEVEL="WARNING"),
                cwd=self._rig.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.stats = psutil.Process(self._process.pid)
        deadline = time.monotonic() + 30
        while True:
            try:
                asyncio.run(_probe(self.port))
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self._process.kill()
                    tail = self._log.read_text("utf-8", "replace")[-1500:]
                    raise BenchmarkError(f"the shim does not start:\n{tail}") from None
                time.sleep(0.1)
            else:
                return

    def restart(self) -> None:
        """Stop it and start it again, on the same port."""
        self.stop()
        self.start()

    def stop(self) -> None:
        """Stop it."""
        self._process.terminate()
        self._process.wait(20)

    def cpu_seconds(self) -> float:
        """What it has taken since its start."""
        return cpu_seconds(self.stats)

    def resident_mb(self) -> float:
        """Its resident memory now, in MB (10^6 bytes)."""
        return float(self.stats.memory_info().rss) / 1e6

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


async def _probe(port: int) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
