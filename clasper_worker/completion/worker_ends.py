"""Reports the turns that end without their body's having a say: revoked, or stopped for good."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import structlog
from billiard.exceptions import TimeLimitExceeded
from celery import states
from celery.worker import state
from redis.exceptions import RedisError

from clasper_worker.completion.completion import Completion
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.pool.request import RedactedRequest
from clasper_worker.engine.queue.delivery import COLLECTED_HEADER, LEASE_HEADER
from clasper_worker.engine.queue.scheduler import Schedule, open_schedule
from clasper_worker.errors import TurnTimeoutError, WorkerLostError
from clasper_worker.turn.call import TurnCall

log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")
_HARD_LIMIT = "The turn took longer than its hard time limit (CLASPER_TURN_HARD_LIMIT_SEC)"


class TurnRequest(RedactedRequest):
    """A turn's request, which enqueues ``agent.error`` where the worker itself ends the turn.

    It runs on the consumer's thread and blocks it for the moment that a message takes, as Celery
    does to store the same end. A broker that does not answer then would not take the
    acknowledgement either, so such a failure is logged, and the turn ended all the same.

    A turn that is stopped ends for all whose messages were collected into it. One that has not
    run, being cancelled or expired, leaves the others to run without it.
    """

    def on_lost_for_good(self, error: WorkerLostError) -> None:
        """Report it before the turn is acknowledged."""
        self._completion.stopped(self._call, error)

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """At the hard limit, report it before the turn is acknowledged."""
        if not soft and not state.should_terminate:
            error = TurnTimeoutError(_HARD_LIMIT)
            self._completion.stopped(self._call, error)
            for call in self._others():
                self._task.backend.mark_as_failure(call.job_id, TimeLimitExceeded(timeout))
                self._completion.stopped(call, error)
        super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        self._completion.revoked(self._call, reason)
        if terminated or not self._part():
            for call in self._others():
                self._task.backend.mark_as_revoked(call.job_id, reason)
                self._completion.revoked(call, reason)
        super()._announce_revoked(reason, terminated, signum, expired)

    @property
    def _completion(self) -> Completion:
        return Completion(self._app)

    @property
    def _call(self) -> TurnCall:
        return TurnCall(self.id, self._kwargs)

    def _others(self) -> Iterator[TurnCall]:
        """The jobs that are run with this one and have not ended by themselves."""
        collected = self._collected()
        # The task may have had some of them wait again since; in a pool's child process only
        # Redis was told.
        members = (
            self._asked(lambda schedule, token: schedule.members(token)) if collected else None
        )
        for job_id, arguments in collected.items():
            is_member = members is None or job_id in members
            if is_member and self._task.backend.get_state(job_id) not in states.READY_STATES:
                yield TurnCall(job_id, arguments)

    def _part(self) -> bool:
        """Leave those that were collected into this one to run by themselves; False if it fails."""
        jobs = list(self._collected())
        return (
            not jobs or self._asked(lambda schedule, token: schedule.part(token, jobs)) is not None
        )

    def _collected(self) -> dict[str, Mapping[str, Any]]:
        collected = self._request_dict.get(COLLECTED_HEADER) or ()
        return {job["job_id"]: job["request"] for job in collected}

    def _asked(self, ask: Callable[[Schedule, str], _Answer]) -> _Answer | None:
        """What the scheduler answers of this delivery; None where there is none, or no answer."""
        schedule = open_schedule(get_settings())
        if schedule is None:
            return None
        try:
            return ask(schedule, self._request_dict[LEASE_HEADER])
        except (RedisError, OSError) as exc:
            log.warning("turn.collected_not_known", job_id=self.id, error=type(exc).__name__)
            return None
        finally:
            schedule.close()
