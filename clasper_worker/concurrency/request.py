"""Celery's request of a coroutine task, which knows when it is too late to stop one."""

from __future__ import annotations

from typing import Any

from billiard.einfo import ExceptionWithTraceback
from celery.exceptions import WorkerLostError as ProcessLostError
from celery.platforms import signals
from celery.worker.request import Request

from clasper_worker.concurrency.job import Job


class CoroutineRequest(Request):
    """A request that is either stopped or has an outcome, never both.

    Celery announces a task as revoked or cancelled once it has told the pool to stop it. Under the
    asyncio pool, whose :class:`~clasper_worker.concurrency.job.Job` knows better, one whose
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
