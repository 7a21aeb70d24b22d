"""What a worker process does to spend less of its CPU time on anything but turns."""

from __future__ import annotations

import gc
import os

_YOUNG_OBJECTS = 10_000


def collect_rarely() -> None:
    """Have Python look for reference cycles after 10,000 new objects, instead of 700.

    A turn makes a few hundred objects that live as long as it does, so with many turns in flight a
    collection finds little and visits a lot. Measured here: 15 % of a worker's CPU time. A process
    that collects as rarely already, or never, is left alone.
    """
    young, *older = gc.get_threshold()
    if 0 < young < _YOUNG_OBJECTS:
        gc.set_threshold(_YOUNG_OBJECTS, *older)


def usable_cpus() -> list[int]:
    """The CPUs that this process may run on; none where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def run_on(cpu: int) -> None:
    """Keep this process, and what it starts, on one CPU.

    To be called before it has threads. The threads of a Python process take turns, and each waking
    the next on another CPU costs more than it gains, above all on virtual machines. Measured here:
    a quarter of a worker's CPU time. It is right only where each CPU gets a process like it.
    """
    os.sched_setaffinity(0, {cpu})
