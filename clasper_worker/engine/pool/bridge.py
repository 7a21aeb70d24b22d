"""From synchronous code into coroutines: one background event loop for the whole process.

Under prefork, threads and solo, and in a caller's own process, a coroutine task runs on this loop
while its thread waits. It is made when first needed, so each prefork child has its own, made
after the fork. The asyncio pool runs its coroutines on the same loop.
"""

from __future__ import annotations

import atexit
import contextvars
import os
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from celery import signals
from celery.app.task import Context
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.engine.pool.context import request_source
from clasper_worker.engine.pool.loop import LoopThread
from clasper_worker.engine.pool.soft_limit import Run

T = TypeVar("T")

UNWIND_TIMEOUT = 5.0
"""Seconds that a coroutine gets to unwind when the thread that waits for it is stopped."""


class _ProcessLoop:
    """Holds the process's one loop; forgets it in a forked child, where its thread is gone."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None

    def get(self) -> LoopThread:
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._thread = LoopThread()
                # billiard's children leave without running atexit; they send this signal.
                signals.worker_process_shutdown.connect(
                    _on_process_shutdown, dispatch_uid="clasper-process-loop"
                )
                atexit.register(close_process_loop)
            return self._thread

    @property
    def running(self) -> LoopThread | None:
        return self._thread

    def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            atexit.unregister(close_process_loop)
            thread.close()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._thread = None


_process_loop = _ProcessLoop()
os.register_at_fork(after_in_child=_process_loop.forget)


def process_loop() -> LoopThread:
    """The process's background event loop, started if it does not run yet."""
    return _process_loop.get()


def start_on_process_loop(begin: Callable[[], object]) -> None:
    """Call this soon on the process's loop, where it has one that runs; from any thread."""
    thread = _process_loop.running
    if thread is not None:
        with suppress(RuntimeError):  # it has just been closed
            thread.loop.call_soon_threadsafe(begin)


def close_process_loop() -> None:
    """Cancel what runs on the process's loop, close its resources and stop it.

    Done by itself at the end of a worker process and at the interpreter's exit.
    """
    _process_loop.close()


def _on_process_shutdown(**_: object) -> None:
    close_process_loop()


def run_coroutine(coro: Coroutine[Any, Any, T], *, request: Context | None = None) -> T:
    """Run a coroutine on the process's loop and wait for it, from synchronous code.

    A soft time limit (which prefork raises in the waiting thread) is thrown into the coroutine,
    which may catch it; one that is not below the hard limit is none. Whatever else stops the
    wait, such as KeyboardInterrupt or SystemExit, cancels the coroutine: nothing is left running
    behind it.

    Args:
        coro: the coroutine; it is closed in any case.
        request: the Celery request that it belongs to, for ``current_request()``.

    Returns:
        What the coroutine returned.

    Raises:
        RuntimeError: called from the process's loop itself, which would wait for ever.
        Exception: whatever the coroutine raised.
    """
    thread = process_loop()
    if thread.is_current():
        coro.close()
        raise RuntimeError("a coroutine cannot wait for another by blocking the loop: await it")
    context = contextvars.copy_context()
    if request is not None:
        context.run(request_source.set, lambda: request)
    ended = threading.Event()
    run = Run(coro, ended.set)
    call_soon = thread.loop.call_soon_threadsafe
    try:
        call_soon(run.start, thread.loop, context)
        _wait(ended, lambda: _has_soft_limit(request) and call_soon(run.limit_softly, None))
    except BaseException:
        call_soon(run.cancel)
        ended.wait(UNWIND_TIMEOUT)
        raise
    if run.error is not None:
        raise run.error
    value: T = run.value
    return value


def _has_soft_limit(request: Context | None) -> bool:
    soft = getattr(request, "soft_time_limit", None)
    hard = getattr(request, "time_limit", None)
    return not (soft and hard and soft >= hard)


def _wait(ended: threading.Event, limit_softly: Callable[[], object]) -> None:
    while not ended.is_set():
        try:
            ended.wait()
        except SoftTimeLimitExceeded:
            limit_softly()
