"""The event loop's side of the asyncio pool: starting, limiting and stopping coroutines."""

from __future__ import annotations

import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable

from celery.app.task import Context

from clasper_worker.engine.pool.context import request_source
from clasper_worker.engine.pool.job import Call, Job, Limits
from clasper_worker.engine.pool.loop import LoopThread
from clasper_worker.engine.pool.soft_limit import INSIST_AFTER, Run

logger = logging.getLogger(__name__)


class CoroutineRunner:
    """Runs jobs' coroutines on an event loop and enforces their time limits.

    The callbacks are called on the loop's thread and must not block.

    Args:
        thread: the loop.
        on_end: a job's coroutine has ended, or will not start because its end had been decided.
        on_limit: a limit was exceeded; the arguments are the job, whether it was the soft one,
            and the limit in seconds. For the hard one, the job has been claimed.
        seconds_after_soft_limit: seconds that a job without a hard limit has then.
        recancel_after: seconds that a cancelled coroutine gets to clean up before it is cancelled
            again.
    """

    def __init__(
        self,
        thread: LoopThread,
        on_end: Callable[[Job], object],
        on_limit: Callable[[Job, bool, float], object],
        seconds_after_soft_limit: float,
        recancel_after: float = INSIST_AFTER,
    ) -> None:
        self._loop = thread.loop
        self._on_end = on_end
        self._on_limit = on_limit
        self._seconds_after_soft_limit = seconds_after_soft_limit
        self._recancel_after = recancel_after
        self._inbox: deque[Job] = deque()
        self._pump_is_due = False

    def launch(self, job: Job) -> None:
        """Start the job's coroutine. From any thread."""
        self._inbox.append(job)
        if not self._pump_is_due:  # one wake-up of the loop for a batch of jobs
            self._pump_is_due = True
            self._loop.call_soon_threadsafe(self._pump)

    def stop(self, job: Job) -> None:
        """Cancel the coroutine of a job that the caller has claimed. From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._cancel, job)
        except RuntimeError:
            logger.debug("job %d outlived its event loop", job.pid)

    def _pump(self) -> None:
        self._pump_is_due = False
        while self._inbox:
            self._start(self._inbox.popleft())

    def _start(self, job: Job) -> None:
        job.began = time.monotonic()
        if job.is_claimed or job.call is None or job.task is None:
            self._ended(job)
            return
        try:
            coro = job.task.coroutine(*job.call.args, **job.call.kwargs)
        except Exception as exc:  # noqa: BLE001  # arguments that the body does not take
            coro = _fail(exc)
        run = job.run = Run(coro, lambda: self._ended(job))
        context = contextvars.Context()
        context.run(request_source.set, _LazyRequest(job.call, job.limits))
        run.start(self._loop, context)
        limits = job.limits
        if limits.soft is not None and (limits.hard is None or limits.soft < limits.hard):
            job.timer = self._loop.call_later(limits.soft, self._soft_limit, job, limits.soft)
        elif limits.hard is not None:
            job.timer = self._loop.call_later(limits.hard, self._hard_limit, job, limits.hard)

    def _ended(self, job: Job) -> None:
        job.ended = time.monotonic()
        if job.timer is not None:
            job.timer.cancel()
            job.timer = None
        self._on_end(job)

    def _soft_limit(self, job: Job, seconds: float) -> None:
        hard = job.limits.hard
        if hard is None:
            hard = seconds + self._seconds_after_soft_limit
        job.timer = self._loop.call_later(hard - seconds, self._hard_limit, job, hard)
        if job.run is not None and not job.is_claimed:
            job.run.limit_softly(seconds)
            self._on_limit(job, True, seconds)

    def _hard_limit(self, job: Job, seconds: float) -> None:
        job.timer = None
        if job.claim():
            self._cancel(job)
            self._on_limit(job, False, seconds)

    def _cancel(self, job: Job, attempt: int = 1) -> None:
        if job.run is None or job.run.is_done:
            return
        if attempt > 1:
            logger.warning(
                "a coroutine of %s goes on %g s after it was cancelled, at %s; cancelling it again",
                job.args[0],
                self._recancel_after,
                job.run.place,
            )
        job.run.cancel()
        self._loop.call_later(self._recancel_after, self._cancel, job, attempt + 1)


async def _fail(error: Exception) -> None:
    raise error


class _LazyRequest:
    """Celery's request of a job, made when the coroutine first asks for it."""

    __slots__ = ("_call", "_limits", "_request")

    def __init__(self, call: Call, limits: Limits) -> None:
        self._call = call
        self._limits = limits
        self._request: Context | None = None

    def __call__(self) -> Context:
        if self._request is None:
            self._request = self._call.context(self._limits)
        return self._request
