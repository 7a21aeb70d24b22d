"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import resource
import time
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from clasper_worker.devkit.local_stack.redis_server import RedisBinary

_PACKAGES = (
    "clasper-worker",
    "celery",
    "kombu",
    "redis",
    "hiredis",
    "openai",
    "httpx2",
    "aiohttp",
    "uvloop",
    "pydantic",
)


def describe(redis_binary: RedisBinary) -> dict[str, Any]:
    """The machine and the versions of what runs, without names of hosts or paths."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "redis_server": f"{redis_binary.version}, append-only file on, fsync every second",
        "versions": {name: _version(name) for name in _PACKAGES},
        "python_loop_ms": _loop_ms(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", "replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def _loop_ms() -> float:
    """CPU time of a fixed loop in Python: how fast this machine is, and was at that moment."""
    times = []
    for _ in range(5):
        began = time.process_time()
        total = 0
        for number in range(1_000_000):
            total += number
        times.append(time.process_time() - began)
    return round(min(times) * 1000, 1)


class ForeignLoad:
    """How busy the processors were with anything but the benchmark, from its making on."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._busy = _busy_seconds()
        self._own = _own_seconds()

    def share(self) -> float:
        """The share of all processors' time, 0 to 1; call it once every child has ended."""
        seconds = (time.monotonic() - self._began) * (os.cpu_count() or 1)
        foreign = (_busy_seconds() - self._busy) - (_own_seconds() - self._own)
        return round(max(foreign, 0.0) / seconds, 3)


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def _own_seconds() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
