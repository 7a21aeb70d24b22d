"""Jobs that were revoked while they wait, taken out of their lanes.

Workers keep in memory what ``app.control.revoke`` told them, and heed it when they get the job. One
that waits in a lane would be delivered long after they have forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import redis
from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer.connection import Connection
from celery.worker.consumer.events import Events

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.cancel import store_revoked
from clasper_worker.engine.queue.cancellations import Cancellations
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.transport import Transport
from clasper_worker.engine.redis.faults import redis_fault, refusal_of

logger = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.0
_LOOK_FOR_SECONDS = 60.0  # that a job may take from its queue into a lane, after it was revoked
_AT_ONCE = 500


class RevokedJobs:
    """Finds out which revoked jobs are new, and withdraws those that wait."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        self._looked_for: dict[str, float] = {}  # until when, by time.monotonic()

    def withdraw(
        self, schedule: Schedule, revoked: Mapping[str, Any], now: float
    ) -> tuple[str, ...]:
        """Withdraw the jobs that wait; returns those, each once among all workers.

        Args:
            schedule: the broker's scheduler.
            revoked: by id, all revoked jobs that the worker knows.
            now: by ``time.monotonic()``.

        Raises:
            RedisError: Redis did not answer; the jobs are tried again.
        """
        new = revoked.keys() - self._seen
        self._seen |= new
        if len(self._seen) > 2 * len(revoked):  # it forgets old ones
            self._seen &= revoked.keys()
        self._looked_for |= dict.fromkeys(new, now + _LOOK_FOR_SECONDS)
        wanted = list(self._looked_for)
        withdrawn: list[str] = []
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            for job, found in schedule.withdraw_all(part, remember=False).items():
                if found == "withdrawn":
                    withdrawn.append(job)
                # One that runs is seen to by Celery's own revoke.
                if found != "unknown" or self._looked_for[job] < now:
                    del self._looked_for[job]
        return tuple(withdrawn)


class WithdrawRevoked(bootsteps.StartStopStep):
    """Has the worker look for newly revoked jobs, on the consumer's thread, as Celery's revoke."""

    requires = (Connection, Events)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._jobs = RevokedJobs()
        self._cancellations: Cancellations | None = None
        self._noted: set[str] = set()

    def start(self, consumer: Any) -> None:
        """Begin, anew after each lost connection."""
        if not isinstance(consumer.connection.transport, Transport):
            self._cancellations = self._cancellations or Cancellations.open(get_settings())
            if self._cancellations is not None:
                self._timer = consumer.timer.call_repeatedly(
                    _PERIOD_SECONDS, self._note, (self._cancellations,)
                )
            return  # another broker has no lanes, and forgets with its last worker
        rules = consumer.app.conf.broker_transport_options.get("schedule_rules", {})
        schedule = Schedule(
            redis.Redis(connection_pool=consumer.connection.default_channel.pool),
            ScheduleRules(**rules),
        )
        self._timer = consumer.timer.call_repeatedly(
            _PERIOD_SECONDS, self._look, (consumer, schedule)
        )

    def stop(self, consumer: Any) -> None:
        """Stop looking."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _note(self, cancellations: Cancellations) -> None:
        revoked = set(worker_state.revoked.as_dict())
        try:
            if revoked - self._noted:
                cancellations.remember(revoked - self._noted)
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            logger.warning("revoked jobs were not noted: %s", refusal_of(exc))
        else:
            self._noted = revoked

    def _look(self, consumer: Any, schedule: Schedule) -> None:
        try:
            revoked = worker_state.revoked.as_dict()
            withdrawn = self._jobs.withdraw(schedule, revoked, time.monotonic())
            store_revoked(consumer.app, withdrawn)  # whichever worker gets it announces it
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            logger.warning("revoked jobs were not withdrawn: %s", refusal_of(exc))
        else:
            if withdrawn:
                logger.info("withdrew %d revoked jobs from their lanes", len(withdrawn))
