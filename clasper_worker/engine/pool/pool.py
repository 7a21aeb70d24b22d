"""The asyncio pool: Celery tasks as coroutines on one event loop per worker process.

Plugged in by Celery's own setting ``worker_pool = "clasper_worker.engine.pool.pool:TaskPool"``.

Three kinds of thread work on a coroutine task, each on what it may touch::

    consumer's thread   on_apply: take a slot, report "accepted" ─┐       ┌─► report: acknowledge,
    (Celery's main)                                               │       │   events, free the slot
    event loop                                     the coroutine ◄┘       │
                                                        │ its outcome     │
    writing thread            Celery's tracer ◄─────────┘ ────────────────┘
                              (result, signals, retries)

Celery's tracer runs unmodified after the coroutine with the outcome at hand (``settling``), in a
thread because it writes the result synchronously (``settler``); what is to be written in the same
moment is written together. Reports to Celery are made on the
consumer's thread (``consumer_thread``). The loop does nothing but turns (``runner``).

A task that is not a coroutine runs whole in a thread, as in Celery's threads pool, and like there
it has no time limits and cannot be stopped.
"""

from __future__ import annotations

import functools
import gc
import itertools
import logging
import os
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.concurrency.base import BasePool
from celery.worker import state as worker_state
from kombu.asynchronous import Hub
from kombu.serialization import prepare_accept_content

from clasper_worker.engine.pool.bridge import close_process_loop, process_loop
from clasper_worker.engine.pool.consumer_thread import ConsumerThread
from clasper_worker.engine.pool.job import Call, Callbacks, Job, Limits
from clasper_worker.engine.pool.result_writer import Settler
from clasper_worker.engine.pool.runner import CoroutineRunner
from clasper_worker.engine.pool.task import CoroutineTask
from clasper_worker.engine.processes.cpu import collect_rarely

logger = logging.getLogger(__name__)

_POLL = 0.02  # seconds between looks at what is left, in a shutdown

_ANNOUNCEMENT_TIMEOUT = 2.0  # seconds that stopping a job waits while its STARTED is being written


class TaskPool(BasePool):
    """Runs up to ``limit`` tasks at a time, each a coroutine on the process's event loop.

    All methods are called on the consumer's thread, by Celery.

    Attributes:
        seconds_after_soft_limit: seconds that a task without a hard limit has then.
        cold_stop_seconds: seconds that a cold shutdown waits for outcomes that are being stored.
        settling_threads: how many threads store outcomes that are not stored together.
        writing_interval: the fewest seconds from one batch of states to the next; a result is
            stored so much later at most.
        plain_threads: how many threads there may be for tasks that are not coroutines.
    """

    seconds_after_soft_limit = 30.0
    cold_stop_seconds = 2.0
    settling_threads = 4
    plain_threads = 64
    writing_interval = 0.02

    body_can_be_buffer = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._pids = itertools.count(1)
        self._pending: deque[Job] = deque()
        self._jobs: dict[int, Job] = {}  # each holds a slot
        self._task_ids: set[str] = set()  # of those
        self._consumer = ConsumerThread()
        self._defaults = Limits(self.options.get("soft_timeout"), self.options.get("timeout"))
        self._hostname: str | None = (self.options.get("initargs") or (None, None))[1]
        self._is_shut_down = False

    # Starting and stopping

    def on_start(self) -> None:
        """Start the event loop."""
        self._collection_thresholds = gc.get_threshold()
        collect_rarely()
        self._accept = prepare_accept_content(self.app.conf.accept_content)
        self._runner = CoroutineRunner(
            process_loop(), self._on_end, self._on_limit, self.seconds_after_soft_limit
        )
        self._settler = Settler(
            self._hostname,
            self._runner.launch,
            functools.partial(self._consumer.post_all, self._report),
            self.settling_threads,
            min(self.limit, self.plain_threads),
            self.writing_interval,
        )
        signals.worker_process_init.send(sender=self._hostname)

    def did_start_ok(self) -> bool:
        """Whether the event loop runs."""
        return process_loop().is_alive()

    def register_with_event_loop(self, loop: Hub) -> None:
        """Report through this hub; called for each connection to the broker."""
        self._consumer.attach(loop)

    def on_stop(self) -> None:
        """Finish what runs (warm shutdown), or what Celery has not cancelled (cold)."""
        self.flush()  # what has not started goes back to the queue
        deadline: float | None = None
        while any(not job.is_claimed or job.is_settling for job in self._jobs.copy().values()):
            # Set while we wait when SIGQUIT follows SIGTERM.
            if worker_state.should_terminate and deadline is None:
                deadline = time.monotonic() + self.cold_stop_seconds
            if deadline is not None and time.monotonic() > deadline:
                break
            self._consumer.turn()
            # Not an event: a signal handler that stops the pool as well may interrupt us here.
            time.sleep(_POLL)
        self._shut_down()

    def on_terminate(self) -> None:
        """Cancel everything, now."""
        self.flush()
        self._shut_down()

    def _shut_down(self) -> None:
        if self._is_shut_down:
            return
        self._is_shut_down = True
        for pid in list(self._jobs):
            self.terminate_job(pid)
        signals.worker_process_shutdown.send(sender=self._hostname, pid=os.getpid(), exitcode=0)
        close_process_loop()
        self._settler.close(self.cold_stop_seconds)
        self._consumer.turn()
        gc.set_threshold(*self._collection_thresholds)

    # Tasks

    def apply_async(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] | None = None,
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Job | None:
        """As Celery's, but without logging the arguments: they hold people's messages."""
        return self.on_apply(target, args or (), kwargs or {}, **options)

    def on_apply(
        self,
        target: Callable[..., Any],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        **options: Any,
    ) -> Job | None:
        """Run a task, now or when a slot is free; None when the pool is closing."""
        if self._state in (self.CLOSE, self.TERMINATE):
            return None  # unacknowledged, so the broker still has it
        job = Job(
            next(self._pids),
            functools.partial(target, **kwargs) if kwargs else target,
            tuple(args),
            Callbacks(
                options.get("accept_callback"),
                options.get("callback"),
                options.get("error_callback"),
                options.get("timeout_callback"),
            ),
            self._defaults.overridden(options.get("soft_timeout"), options.get("timeout")),
            self._stop_job,
        )
        with self._consumer.lock:
            self._pending.append(job)
            self._fill()
        return job

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        """Cancel one job: its own outcome will not be stored. Celery says what became of it."""
        job = self._jobs.get(pid)
        if job is not None:
            job.terminate(signal)

    def withdraw(self, job: Job) -> bool:
        """Take back a job that waits for a slot; False if it does not wait any more."""
        with self._consumer.lock:
            try:
                self._pending.remove(job)
            except ValueError:
                return False
        return True

    def holds(self, job: Job) -> bool:
        """Whether the job runs, ends or waits here."""
        return job.pid in self._jobs or job in self._pending

    def flush(self) -> None:
        """Forget jobs that wait for a slot: after a lost connection the broker redelivers them."""
        with self._consumer.lock:
            self._pending.clear()

    def grow(self, n: int = 1) -> None:
        """Allow ``n`` more tasks at a time."""
        with self._consumer.lock:
            self.limit += n
            self._fill()

    def shrink(self, n: int = 1) -> None:
        """Allow ``n`` fewer tasks at a time; those that run go on.

        Raises:
            ValueError: fewer than one would be left.
        """
        if self.limit - n < 1:
            raise ValueError(f"the pool has {self.limit} slots; {n} cannot be taken away")
        self.limit -= n

    def _get_info(self) -> dict[str, Any]:
        info: dict[str, Any] = super()._get_info()
        info.update(
            {
                "processes": [os.getpid()],
                "in-flight": len(self._jobs),
                "waiting": len(self._pending),
                "event-loop": process_loop().implementation,
                "threads": self._settler.threads,
                "timeouts": [self._defaults.soft or 0, self._defaults.hard or 0],
            }
        )
        return info

    # A job's way: on the consumer's thread …

    def _fill(self) -> None:
        while len(self._jobs) < self.limit and self._state == self.RUN:
            job = self._next()
            if job is None:
                return
            self._start(job)

    def _next(self) -> Job | None:
        # One job of a task id at a time: a retry may be back from the broker before its first
        # attempt has stored RETRY, and would have its own outcome overwritten. A redelivery of
        # what still runs here waits as well.
        for index, job in enumerate(self._pending):
            if job.task_id not in self._task_ids:
                del self._pending[index]
                return job
        return None

    def _start(self, job: Job) -> None:
        self._jobs[job.pid] = job
        self._task_ids.add(job.task_id)
        job.began = time.monotonic()
        try:
            self._read(job)
            if job.callbacks.on_accepted is not None:
                job.callbacks.on_accepted(job.pid, job.began)
        except BaseException:
            self._free(job)
            raise
        if job.is_claimed:  # revoked while it waited
            self._free(job)
        elif job.call is None:
            self._settler.run_plain(job)
        else:
            self._settler.announce(job)

    def _read(self, job: Job) -> None:
        task = self.app.tasks.get(job.args[0]) if job.args else None
        if not isinstance(task, CoroutineTask):
            return
        try:
            job.call = Call.decode(job.args, self._accept)
        except Exception:  # the tracer meets it again, and knows how to report it
            logger.debug("cannot decode the message of %s", task.name, exc_info=True)
        else:
            job.task = task

    def _stop_job(self, job: Job) -> None:
        if job.call is None:
            logger.warning("%s is not a coroutine and cannot be stopped", job.args[0])
            return
        deadline = time.monotonic() + _ANNOUNCEMENT_TIMEOUT
        while job.announcing and time.monotonic() < deadline:
            time.sleep(0.001)  # or its STARTED would overwrite the state that follows
        self._runner.stop(job)

    def _free(self, job: Job) -> None:
        if self._jobs.pop(job.pid, None) is not None:
            self._task_ids.discard(job.task_id)

    def _release(self, job: Job) -> None:
        self._free(job)
        self._fill()

    def _report(self, job: Job, result: Any, failure: ExceptionInfo | None) -> None:
        self._free(job)
        try:
            if job.call is None and not job.claim():
                return  # not a coroutine, and stopped: something else has been reported
            if failure is not None:
                if job.callbacks.on_error is not None:
                    job.callbacks.on_error(failure)
            elif job.callbacks.on_result is not None:
                job.callbacks.on_result(result)
        finally:
            self._fill()

    def _report_limit(self, job: Job, soft: bool, seconds: float) -> None:
        if job.callbacks.on_timeout is not None:
            job.callbacks.on_timeout(soft, seconds)

    # … and on the event loop's

    def _on_end(self, job: Job) -> None:
        if job.claim():
            job.is_settling = True
            self._settler.settle(job)
        else:  # its end was decided and reported otherwise
            self._consumer.post(self._release, job)

    def _on_limit(self, job: Job, soft: bool, seconds: float) -> None:
        self._consumer.post(self._report_limit, job, soft, seconds)
