"""Beats: processes that send what is due, and what their logs tell of it."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from datetime import datetime

from tests.chaos.records import Tick
from tests.chaos.scene import Scene
from tests.chaos.workers import Process, wait_until

_COMMAND = ("-A", "beat_schedule", "beat", "-l", "DEBUG")  # of single ticks it tells there alone
_STOCK = ("-S", "celery.beat:PersistentScheduler")
_START_SECONDS = 60.0
_SENDS = re.compile(r"Scheduler: Sending due task (\S+) ")


@dataclass(frozen=True, slots=True)
class Beat:
    """One Beat.

    Attributes:
        process: of it.
        stock: whether it has Celery's own scheduler, which knows of no other Beat.
    """

    process: Process
    stock: bool = False

    def ticks(self) -> list[Tick]:
        """What it has sent so far."""
        log = self.process.log.read_text("utf-8", "replace")
        return read_ticks(log, self.process.name, stock=self.stock)


def start_beat(scene: Scene, name: str, *, stock: bool = False) -> Beat:
    """Start a Beat as the product has it, or a stock one; returns when it is up."""
    process = scene.start(name, [*_COMMAND, *(_STOCK if stock else ())])
    beat = Beat(process, stock)
    if not wait_until(lambda: "beat: Starting" in process.log.read_text("utf-8"), _START_SECONDS):
        raise RuntimeError(f"{name} did not come up:\n{process.last_lines()}")
    return beat


def read_ticks(log: str, beat: str, *, stock: bool = False) -> list[Tick]:
    """What a Beat's log says that it has sent, oldest first; times as `records` has them."""
    ahead = time.time() - time.monotonic()
    ticks = []
    for line in log.splitlines(keepends=True):
        # A line that is still being written is read the next time; Beat's banner is no JSON.
        if not line.startswith("{") or not line.endswith("\n"):
            continue
        told = json.loads(line)
        if sends := _SENDS.match(told["event"]):
            at = datetime.fromisoformat(told["timestamp"]).timestamp() - ahead
            ticks.append(Tick(sends[1], beat, at, stock))
    return ticks
