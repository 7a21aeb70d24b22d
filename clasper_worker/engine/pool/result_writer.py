"""The threads that write to the result backend: STARTED and outcomes.

One thread writes what our Redis backend can store in one exchange, batch by batch: STARTED of the
coroutines that have begun, and the values of those that have returned. Then it runs Celery's
tracer for the latter, which finds its result stored, and reports them together. So signals, log
lines and the acknowledgement follow the stored result, as they do in Celery.

All else goes through threads of its own, one call at a time, in which the tracer stores the
outcome itself: errors and retries, calls with callbacks or a chord (which may need the stored
result, and send messages), tasks with hooks of their own (which may block), other result backends,
and values that Redis will not take. A hook or a broker that is stuck holds up one of those threads.
While Redis refuses, or does not answer, the writing thread and all of them try again and again, and
nothing else waits: coroutines do not wait for their STARTED. An outcome that cannot be stored for
minutes sends its message back to the queue (`results`).

STARTED is never stored after the outcome of the same call, because the same thread does both, in
order, and leaves STARTED out for a call whose end has been decided. A revocation is stored by the
consumer's thread; our Redis backend keeps it if STARTED comes late.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, NamedTuple

from billiard.einfo import ExceptionInfo
from celery import states
from celery.app.task import get_actual_ignore_result
from celery.app.trace import task_has_custom

from clasper_worker.engine.pool.job import Call, Job
from clasper_worker.engine.pool.result_backend import (
    PATIENCE_SECONDS,
    AtomicRedisBackend,
    StateWrite,
)
from clasper_worker.engine.pool.task import CoroutineTask
from clasper_worker.engine.pool.threads import BatchThread, ThreadCrew
from clasper_worker.engine.pool.traced_call import SettledCall, settling
from clasper_worker.engine.redis.faults import redis_fault, typed_error

logger = logging.getLogger(__name__)


class Settled(NamedTuple):
    """A settled job: what the tracer returned (``(failed, value, runtime)``), or what it raised."""

    job: Job
    result: Any
    failure: ExceptionInfo | None


class _Note(NamedTuple):
    """Something to be written: that a job's coroutine has begun, or what it returned."""

    job: Job
    has_ended: bool


class _Way(NamedTuple):
    """How a task's states are stored.

    Attributes:
        together: whether with others', by our Redis backend.
        ahead: whether its values too, before the tracer runs: it is sure to make SUCCESS of them,
            and does nothing slow.
    """

    together: bool
    ahead: bool


class Settler:
    """Writes the states of jobs, and runs Celery's tracer on their outcomes.

    Args:
        hostname: the worker's node name, for the STARTED state.
        launch: called with a job that may start.
        report: called with jobs that are settled.
        size: how many threads may store outcomes one at a time.
        plain_size: how many threads there may be for tasks that are not coroutines.
        interval: the fewest seconds from one batch of states to the next.
    """

    def __init__(
        self,
        hostname: str | None,
        launch: Callable[[Job], object],
        report: Callable[[list[Settled]], object],
        size: int,
        plain_size: int,
        interval: float,
    ) -> None:
        self._hostname = hostname
        self._launch = launch
        self._report = report
        self._writer: BatchThread[_Note] = BatchThread("clasper-write", self._write_all, interval)
        self._is_refused = False
        self._crew = ThreadCrew("clasper-settle", size)
        self._plain_crew = ThreadCrew("clasper-plain", plain_size)
        self._ways: dict[CoroutineTask, _Way] = {}

    @property
    def threads(self) -> int:
        """How many threads run."""
        return len(self._writer) + len(self._crew) + len(self._plain_crew)

    def announce(self, job: Job) -> None:
        """Launch the job, and write its STARTED state if its task tracks that.

        With other backends than ours it is launched once that is written: nothing else would keep
        STARTED from overwriting a revocation.
        """
        if job.task is None or not job.task.track_started:
            self._launch(job)
        elif self._way(job.task).together:
            self._writer.put(_Note(job, has_ended=False))
            self._launch(job)
        else:
            job.announcing = True
            self._crew.submit(self._announce, job)

    def settle(self, job: Job) -> None:
        """Have Celery's tracer store the outcome of the job's coroutine."""
        if job.task is not None and self._way(job.task).together:
            self._writer.put(_Note(job, has_ended=True))
        else:
            self._crew.submit(self._settle_alone, job)

    def run_plain(self, job: Job) -> None:
        """Run a task that is not a coroutine, tracer and all."""
        self._plain_crew.submit(self._run_plain, job)

    def close(self, timeout: float) -> None:
        """Let what is being written be written."""
        self._writer.close(timeout)
        self._crew.close(timeout)
        self._plain_crew.close(0.0)

    def _way(self, task: CoroutineTask) -> _Way:
        way = self._ways.get(task)
        if way is None:
            way = self._ways[task] = _way(task)
        return way

    # Together, on the writing thread

    def _write_all(self, notes: list[_Note]) -> list[_Note]:
        """Store what can be stored; a fault of ours costs no job its outcome."""
        try:
            return self._write(notes)
        except Exception:
            logger.exception("storing %d states together failed", len(notes))
            for note in notes:
                if note.has_ended and note.job.run is not None:  # else it is settled
                    self._crew.submit(self._settle_alone, note.job)
            return []

    def _write(self, notes: list[_Note]) -> list[_Note]:
        """Store what can be stored in one exchange; returns what is to be tried again."""
        states_of: dict[AtomicRedisBackend, dict[_Note, StateWrite]] = {}
        for note in notes:
            state = self._prepare(note)
            if state is not None and note.job.task is not None:
                states_of.setdefault(note.job.task.backend, {})[note] = state
        stored: set[_Note] = set()
        again: set[_Note] = set()
        latest = time.monotonic() - PATIENCE_SECONDS / 2  # then a thread of its own goes on
        for backend, prepared in states_of.items():
            for note, refusal in zip(prepared, self._refusals(backend, prepared), strict=True):
                if refusal is None:
                    stored.add(note)
                elif _passes(refusal) and (not note.has_ended or note.job.ended > latest):
                    again.add(note)
                elif not note.has_ended:  # a refused outcome is reported by the tracer
                    logger.warning(
                        "could not store STARTED of %s: %s", note.job.args[0], typed_error(refusal)
                    )
        self._settle_all([note for note in notes if note.has_ended and note not in again], stored)
        return [note for note in notes if note in again]

    def _refusals(
        self, backend: AtomicRedisBackend, prepared: dict[_Note, StateWrite]
    ) -> list[Exception | None]:
        """Send states; what came of each: an error, or None where it is stored."""
        refusals: list[Exception | None]
        try:
            refusals = backend.write(list(prepared.values()))
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            refusals = [exc] * len(prepared)
        passing = next((one for one in refusals if one is not None and _passes(one)), None)
        if passing is not None and not self._is_refused:
            error = typed_error(passing, "CELERY_RESULT_BACKEND")
            logger.warning("%s; waiting to store %d states", error, len(prepared))
        elif passing is None and self._is_refused:
            logger.info("states are stored again")
        self._is_refused = passing is not None
        return refusals

    def _settle_all(self, ends: list[_Note], stored: set[_Note]) -> None:
        settled = []
        for note in ends:
            if note in stored:
                settled.append(self._settle(note.job, is_stored=True))
            else:
                self._crew.submit(self._settle_alone, note.job)
        if settled:
            self._report(settled)

    def _prepare(self, note: _Note) -> StateWrite | None:
        """The state to store; None if there is none, or if the tracer is to store it."""
        try:
            return self._outcome(note.job) if note.has_ended else self._started(note.job)
        except Exception:  # the tracer meets it again, and knows how to report it
            logger.debug("cannot encode a state of %s", note.job.args[0], exc_info=True)
            return None

    def _started(self, job: Job) -> StateWrite | None:
        task, call, began = job.task, job.call, job.began
        # Looked at after `began` was read: a revocation that is not seen here is later than that.
        if job.is_claimed or task is None or call is None:
            return None
        request = call.context(job.limits)
        if get_actual_ignore_result(task, request):
            return None
        ago = timedelta(seconds=time.monotonic() - began)
        since = (task.app.now() - ago).isoformat()
        meta = {"pid": os.getpid(), "hostname": self._hostname}
        write: StateWrite = task.backend.prepare(
            call.task_id, meta, states.STARTED, request=request, since=since
        )
        return write

    def _outcome(self, job: Job) -> StateWrite | None:
        task, call, run = job.task, job.call, job.run
        if task is None or call is None or run is None or run.error is not None:
            return None
        if not self._way(task).ahead or _leads_on(call):
            return None
        request = call.context(job.limits)
        if get_actual_ignore_result(task, request):
            return None
        backend = task.backend
        value = backend.encode_result(run.value, states.SUCCESS)
        write: StateWrite = backend.prepare(call.task_id, value, states.SUCCESS, request=request)
        return write

    # One at a time

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

    def _settle_alone(self, job: Job) -> None:
        self._report([self._settle(job, is_stored=False)])

    def _run_plain(self, job: Job) -> None:
        self._report([_trace(job, job.args)])

    def _settle(self, job: Job, *, is_stored: bool) -> Settled:
        task, call, run = job.task, job.call, job.run
        if task is None or call is None or run is None:
            raise RuntimeError("only a coroutine that has run can be settled")
        stored_id = call.task_id if is_stored else None
        settling.call = SettledCall(task, run.value, run.error, job.began, job.ended, stored_id)
        job.run = None  # the outcome is with the call now
        try:
            return _trace(job, call.trace_args())
        finally:
            settling.call = None


def _passes(refusal: Exception) -> bool:
    kind = redis_fault(refusal)
    return kind is not None and kind.passes


def _trace(job: Job, args: tuple[Any, ...]) -> Settled:
    try:
        return Settled(job, job.target(*args), None)
    except BaseException:  # noqa: BLE001  # SystemExit too: Celery reports it as a failure
        return Settled(job, None, ExceptionInfo())


def _way(task: CoroutineTask) -> _Way:
    conf, backend = task.app.conf, task.backend
    together = isinstance(backend, AtomicRedisBackend) and backend.is_atomic
    has_hooks = any(
        task_has_custom(task, hook) for hook in ("before_start", "on_success", "after_return")
    )
    ahead = (
        together
        and type(task).__call__ is CoroutineTask.__call__
        and not has_hooks
        and not conf.worker_deduplicate_successful_tasks
        and not conf.result_extended  # stores what only the tracer's request has
    )
    return _Way(together, ahead)


def _leads_on(call: Call) -> bool:
    """Whether a call's success has the tracer send messages, before or after it stores it."""
    return any(
        call.embed.get(part) or call.request.get(part) for part in ("callbacks", "chain", "chord")
    )
