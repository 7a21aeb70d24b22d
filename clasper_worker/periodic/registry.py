"""The periodic jobs: what Beat enqueues, how often, and how long each may take.

A job is a line here; its task lies in `clasper_worker.tasks`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from clasper_worker.config.names import DISPATCH_TASK, HEARTBEATS_TASK, STANDUPS_TASK
from clasper_worker.config.settings import Settings


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """One entry of Beat's schedule.

    Attributes:
        name: of the entry.
        task: the Celery task that it enqueues.
        seconds: between two ticks, as the operator configured it.
        time_limit: seconds that one tick may take.
    """

    name: str
    task: str
    seconds: Callable[[Settings], float]
    time_limit: float = 120.0


PERIODIC_JOBS = (
    # Polls undelivered notifications, less often while there are none (DISPATCH_MAX_INTERVAL_SEC).
    PeriodicJob("dispatch", DISPATCH_TASK, lambda settings: settings.dispatch_min_interval_sec),
    # Each agent's heartbeat, once in CLASPER_HEARTBEAT_INTERVAL_SEC and spread over it.
    PeriodicJob("heartbeats", HEARTBEATS_TASK, lambda _: 10.0),
    # Each agent's standup, once a day after CLASPER_STANDUP_AT of its own time zone.
    PeriodicJob("standups", STANDUPS_TASK, lambda _: 15.0),
)
