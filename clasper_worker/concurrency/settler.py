"""The threads that write to the result backend: STARTED before a coroutine, its outcome after."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import states
from celery.app.task import get_actual_ignore_result

from clasper_worker.concurrency.job import Job
from clasper_worker.concurrency.settling import SettledCall, settling
from clasper_worker.concurrency.threads import ThreadCrew

logger = logging.getLogger(__name__)

Report = Callable[[Job, Any, ExceptionInfo | None], object]


class Settler:
    """Runs Celery's tracer on outcomes, several at a time.

    Args:
        hostname: the worker's node name, for the STARTED state.
        launch: called with a job whose STARTED state has been written.
        report: called with a settled job, and either what the tracer returned (``(failed, value,
            runtime)``) or what it raised.
        size: how many threads may write results at a time.
        plain_size: how many threads there may be for tasks that are not coroutines.
    """

    def __init__(
        self,
        hostname: str | None,
        launch: Callable[[Job], object],
        report: Report,
        size: int,
        plain_size: int,
    ) -> None:
        self._hostname = hostname
        self._launch = launch
        self._report = report
        self._crew = ThreadCrew("clasper-settle", size)
        self._plain_crew = ThreadCrew("clasper-plain", plain_size)

    @property
    def threads(self) -> int:
        """How many threads run."""
        return len(self._crew) + len(self._plain_crew)

    def announce(self, job: Job) -> None:
        """Write the job's STARTED state if its task tracks that, then launch it."""
        if job.task is None or job.call is None or not job.task.track_started:
            self._launch(job)
            return
        job.announcing = True
        self._crew.submit(self._announce, job)

    def settle(self, job: Job) -> None:
        """Have Celery's tracer store the outcome of the job's coroutine."""
        self._crew.submit(self._settle, job)

    def run_plain(self, job: Job) -> None:
        """Run a task that is not a coroutine, tracer and all."""
        self._plain_crew.submit(self._run_plain, job)

    def close(self, timeout: float) -> None:
        """Let what is being written be written."""
        self._crew.close(timeout)
        self._plain_crew.close(0.0)

    def _announce(self, job: Job) -> None:
        task, call = job.task, job.call
        try:
            if task is not None and call is not None:
                request = call.context(job.limits)
                if not get_actual_ignore_result(task, request):
                    meta = {"pid": os.getpid(), "hostname": self._hostname}
                    task.backend.store_result(call.task_id, meta, states.STARTED, request=request)
        except Exception:  # STARTED informs; the turn itself does not depend on it
            logger.warning("could not store STARTED of %s", job.args[0], exc_info=True)
        finally:
            job.announcing = False
            self._launch(job)

    def _settle(self, job: Job) -> None:
        task, call, run = job.task, job.call, job.run
        if task is None or call is None or run is None:
            raise RuntimeError("only a coroutine that has run can be settled")
        settling.call = SettledCall(task, run.value, run.error, job.began, job.ended)
        job.run = None  # the outcome is with the call now
        try:
            self._trace(job, call.trace_args())
        finally:
            settling.call = None

    def _run_plain(self, job: Job) -> None:
        self._trace(job, job.args)

    def _trace(self, job: Job, args: tuple[Any, ...]) -> None:
        try:
            result = job.target(*args)
        except BaseException:  # noqa: BLE001  # SystemExit too: Celery reports it as a failure
            self._report(job, None, ExceptionInfo())
        else:
            self._report(job, result, None)
