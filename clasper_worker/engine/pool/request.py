"""Celery's request of a coroutine task, which knows when it is too late to stop one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billiard.einfo import ExceptionInfo, ExceptionWithTraceback
from celery.exceptions import WorkerLostError as ProcessLostError
from celery.platforms import signals
from celery.worker.request import Request

from clasper_worker.engine.pool.job import Job
from clasper_worker.engine.queue.lease_keeper import is_lease_token
from clasper_worker.errors import WorkerLostError
from clasper_worker.observability.redaction import redacted


class CoroutineRequest(Request):
    """A request that is either stopped or has an outcome, never both.

    Celery announces a task as revoked or cancelled once it has told the pool to stop it. Under the
    asyncio pool, whose :class:`~clasper_worker.engine.pool.job.Job` knows better, one whose
    outcome is already being stored is left alone, and reports that.
    """

    time_limits: tuple[float | None, float | None]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        hard = self.time_limits[0] or self.task.time_limit
        soft = self.time_limits[1] or self.task.soft_time_limit
        if hard and soft and soft > hard:
            # Celery's prefork pool looks at the hard limit only once the soft one has passed; there
            # both pass together then. The asyncio pool knows the hard one alone.
            self.time_limits = (hard, hard)

    def terminate(self, pool: Any, signal: str | int | None = None) -> None:
        """Stop the task and announce it as revoked, unless it has an outcome."""
        job = self._job()
        if job is None:
            super().terminate(pool, signal)
        elif pool.withdraw(job):
            job.claim()
            self._announce_revoked("terminated", True, signals.signum(signal or "TERM"), False)
        elif job.claim():
            job.stop(job)
            super().terminate(pool, signal)

    def cancel(self, pool: Any, signal: str | int | None = None, emit_retry: bool = True) -> None:
        """Stop the task without an outcome, to be run again; unless it has one."""
        job = self._job()
        if job is None:
            super().cancel(pool, signal, emit_retry=emit_retry)
        elif job.claim():
            job.stop(job)
            super().cancel(pool, signal, emit_retry=emit_retry)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """As Celery's; the message of a task that lost its process says so when it is given back.

        That is under prefork: a child was killed, or ended, while it ran the task.
        """
        if is_process_lost(exc_info):
            self.message.lost_its_process = True
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def _job(self) -> Job | None:
        result = self._apply_result() if self._apply_result is not None else None
        return result if isinstance(result, Job) else None


def is_process_lost(exc_info: Any) -> bool:
    """Whether what a pool reports as a task's failure is that its process is gone."""
    error = exc_info.exception
    if isinstance(error, ExceptionWithTraceback):
        error = error.exc
    return isinstance(error, ProcessLostError | SystemExit | KeyboardInterrupt)


class RedactedRequest(CoroutineRequest):
    """A task request whose shown arguments are redacted, whatever the sender's headers say.

    It also ends a task that lost its process twice, under a broker that does not count how often it
    delivers a message: there it would be run, and kill, for ever. Our scheduler does count.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        arguments = self._kwargs if isinstance(self._kwargs, Mapping) else {}
        count = len(self._args) if isinstance(self._args, list | tuple) else 0
        self._argsrepr = f"({count} positional)" if count else "()"
        self._kwargsrepr = redacted(arguments)
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """As Celery's; see the class for what is different."""
        if is_process_lost(exc_info) and not self.acknowledged and self._is_last_delivery():
            error = WorkerLostError(
                "The task's process was lost each time that it ran: look for what kills it"
                " (memory, a signal) in the worker's and the system's log",
                {"job_id": self.id},
            )
            self.on_lost_for_good(error)
            exc_info = _info_of(error)
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_lost_for_good(self, error: WorkerLostError) -> None:
        """Called before the task's end of this kind is stored."""

    def _is_last_delivery(self) -> bool:
        is_counted = is_lease_token(self.message.delivery_tag)
        return not is_counted and bool(self.delivery_info.get("redelivered"))

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What remote control shows (``celery inspect``, Flower): always with the safe forms."""
        del safe
        shown: dict[str, Any] = super().info(safe=True)
        return shown


def _info_of(error: WorkerLostError) -> ExceptionInfo:
    try:
        raise error
    except WorkerLostError:
        return ExceptionInfo()
