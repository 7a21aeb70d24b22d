"""What it costs to schedule the heartbeats of many agents, apart from the heartbeats themselves.

Real Beat sends its ticks, all three kinds of them, to a queue of their own; a real worker runs
them, and with them the fan-out: it asks the backend who the agents are, finds out whose heartbeat
has come due, and enqueues it. Nobody runs those heartbeats: they stay in their own queue, where
they are counted. So all CPU time of Beat's process and of that worker is the schedule's.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import psutil
from due import check_enqueued, users_due
from internal_endpoints import AGENT_ROLE, agent_user
from plan import Plan
from processes import HERE, ROOT, BenchmarkError, Program, Worker, cpu_seconds
from rig import Rig
from ticks import TICK_QUEUE

from clasper_worker.config.names import PERIODIC_QUEUE
from clasper_worker.periodic.agents import Agent

Found = TypeVar("Found")

INTERVAL_SECONDS = 1800
_IDLE_SECONDS = 10.0
_SETTLED_SECONDS = 1.0
_EARLY_SECONDS = 3.0  # a tick comes so much before its time at most
_TICK_SECONDS = 60.0  # within which a tick has to come
_NOTE = "clasper:jobs:heartbeats:until"


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Watch the schedule for a part of the interval.

    Agents are spread evenly over the interval, so that any part of it stands for the whole. CPU
    time is counted from the moment when Beat leads, before the tick that asks the backend for all
    agents, to a moment after the last tick; it is divided by the time from the first tick of the
    heartbeats to their last.
    """
    rig.behave()
    variables = _variables(datetime.now(UTC))
    with rig.workers(1, ["-Q", TICK_QUEUE], warm_up=0, variables=variables) as (worker,):
        rig.backend.tell("agents", plan.agents)
        idle = _idle_share(worker)
        variables["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(HERE)))
        with rig.beat(("-m", "celery", "-A", "ticks", "beat"), variables) as beat:
            programs = (beat, worker)
            # The dispatcher's tick comes first.
            _wait_for(lambda: "GET dispatch/undelivered" in _calls(rig), programs)
            before = _cpu(rig, beat, worker)
            first = _wait_for(lambda: rig.backlog.note(_NOTE), programs)
            end = first + plan.agents_seconds - _EARLY_SECONDS
            last = _wait_for(
                lambda: _newer(rig.backlog.note(_NOTE), end), programs, plan.agents_seconds
            )
            time.sleep(_SETTLED_SECONDS)
            after = _cpu(rig, beat, worker)
    last = rig.backlog.note(_NOTE) or last  # a tick may have come since: it is counted as well
    agents = [
        Agent.of({"user_id": agent_user(number), "agent_role": AGENT_ROLE})
        for number in range(plan.agents)
    ]
    due = users_due(agents, INTERVAL_SECONDS, first, last)
    enqueued = [
        arguments["user_id"]
        for task, arguments in rig.backlog.waiting(PERIODIC_QUEUE)
        if task == "clasper.heartbeat"
    ]
    rig.faults.add(check_enqueued(due, enqueued))
    shares = {name: (after[name] - before[name]) / (last - first) for name in before}
    figures = {
        "agents": plan.agents,
        "interval_seconds": INTERVAL_SECONDS,
        "watched_seconds": round(last - first, 1),
        "enqueued": len(enqueued),
        "share_of_a_core": round(shares["beat"] + shares["worker"], 4),
        "beat_share": round(shares["beat"], 4),
        "worker_share": round(shares["worker"], 4),
        "idle_worker_share": round(idle, 4),
        "redis_share": round(shares["redis"], 4),
        "calls": _calls(rig),
    }
    say(
        f"{plan.agents:,} agents: {figures['share_of_a_core']:.1%} of a core, {len(enqueued)}"
        f" heartbeats enqueued in {figures['watched_seconds']:g} s"
    )
    return figures


def _variables(now: datetime) -> dict[str, str]:
    # Standups were due hours ago and are not for hours to come: their ticks find nothing to do.
    standups = now - timedelta(hours=6)
    return {
        "CLASPER_HEARTBEAT_INTERVAL_SEC": str(INTERVAL_SECONDS),
        "CLASPER_STANDUP_AT": f"{standups:%H:%M}",
        "STANDUP_TIMEZONE": "UTC",
    }


def _idle_share(worker: Worker) -> float:
    """What the worker takes of a core while nothing happens at all."""
    time.sleep(_SETTLED_SECONDS)
    before = cpu_seconds(worker.stats)
    time.sleep(_IDLE_SECONDS)
    return (cpu_seconds(worker.stats) - before) / _IDLE_SECONDS


def _cpu(rig: Rig, beat: Program, worker: Program) -> dict[str, float]:
    redis = psutil.Process(rig.broker.pid)
    watched = {"beat": beat.stats, "worker": worker.stats, "redis": redis}
    return {name: cpu_seconds(process) for name, process in watched.items()}


def _calls(rig: Rig) -> dict[str, int]:
    calls: dict[str, int] = rig.backend.ask("counts")["calls"]
    return calls


def _newer(note: float | None, than: float) -> float | None:
    return note if note is not None and note > than else None


def _wait_for(
    look: Callable[[], Found | None], programs: Iterable[Program], seconds: float = 0.0
) -> Found:
    deadline = time.monotonic() + seconds + _TICK_SECONDS
    while not (found := look()):
        for program in programs:
            program.check_alive()
        if time.monotonic() > deadline:
            raise BenchmarkError(f"no tick within {seconds + _TICK_SECONDS:g} s")
        time.sleep(0.1)
    return found
