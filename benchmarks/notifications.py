"""Many undelivered notifications: how long until all of them are answered and acknowledged."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from answered import check_answers, make_notifications
from plan import Plan
from processes import Program, cpu_seconds, wait_until_idle
from rig import Rig

MODEL_SECONDS = 2.0
PROCESSES = 2
_STALL_SECONDS = 20.0


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Start Beat when so many are undelivered, with workers ready and warm; several times.

    Time begins with the start of Beat's process. From there on everything is as in production:
    Beat's ticks, polls by a worker, turns, and an acknowledgement by a worker for each.
    """
    users, each = plan.notified
    trials = []
    for _ in range(plan.notified_trials):
        trials.append(_trial(rig, users, each, plan.warm_up))
        say(
            f"{users * each:,} notifications: {trials[-1]['acknowledged_seconds']:.1f} s"
            f" (the first were listed after {trials[-1]['listed_seconds']:.1f} s)"
        )
    totals = [trial["acknowledged_seconds"] for trial in trials]
    return {
        "users": users,
        "notifications": users * each,
        "processes": PROCESSES,
        "model_seconds": MODEL_SECONDS,
        "one_after_another_seconds": users * each * MODEL_SECONDS,
        "least_seconds": each * MODEL_SECONDS,
        "trials": len(trials),
        **{name: round(statistics.median(t[name] for t in trials), 2) for name in trials[0]},
        "acknowledged_seconds_range": [min(totals), max(totals)],
    }


def _trial(rig: Rig, users: int, each: int, warm_up: int) -> dict[str, float]:
    rig.behave()
    with rig.workers(PROCESSES, warm_up=warm_up) as workers:
        rig.behave(latency=MODEL_SECONDS)
        notifications = make_notifications(users, each)
        rig.backend.tell("notify", [each.delivery() for each in notifications])
        processes = [worker.stats for worker in workers]
        cpu = sum(map(cpu_seconds, processes))
        began = time.monotonic()
        with rig.beat() as beat:
            _wait_until_acknowledged(rig, len(notifications), [*workers, beat])
            counts = rig.backend.ask("counts")
            time.sleep(MODEL_SECONDS + 1)  # what is answered or acknowledged twice comes later
            wait_until_idle(processes)
            cpu = sum(map(cpu_seconds, processes)) - cpu
        rig.faults.add(
            check_answers(
                notifications,
                rig.backend.ask("posts"),
                rig.backend.ask("acknowledged"),
                rig.model.ask("counts")["calls"],
            )
        )
    return {
        "listed_seconds": round(counts["first_listed"] - began, 2),
        "answered_seconds": round(counts["last"] - began, 2),
        "acknowledged_seconds": round(counts["last_acknowledged"] - began, 2),
        "cpu_ms_each": round(cpu / len(notifications) * 1000, 2),
    }


def _wait_until_acknowledged(rig: Rig, count: int, programs: Sequence[Program]) -> None:
    """Return at the last one; or where nothing happens, for the check to count what is missing."""
    seen, deadline = -1, 0.0
    while True:
        counts = rig.backend.ask("counts")
        if counts["posts"] + counts["acknowledged"] > seen:
            seen = counts["posts"] + counts["acknowledged"]
            deadline = time.monotonic() + _STALL_SECONDS
        if counts["acknowledged"] >= count or time.monotonic() > deadline:
            return
        for program in programs:
            program.check_alive()
        time.sleep(0.05)
