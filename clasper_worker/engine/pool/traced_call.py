"""Handing a coroutine's outcome to Celery's own tracer, which runs after the coroutine.

While a thread settles a call, the task that the tracer calls gives the outcome at hand, and the
clock that the tracer reads shows when the coroutine began and ended. So retries, results, signals,
states, log lines and runtimes all stay Celery's own.
"""

from __future__ import annotations

import threading
import time
from typing import Any

from celery import states


class SettledCall:
    """One finished call of a coroutine task.

    Args:
        task: the task whose call it was.
        value: what the coroutine returned.
        error: what it raised, or None.
        began: when it was started, by ``time.monotonic()``.
        ended: when it ended, by the same clock.
        stored_id: the Celery id under which its value has been stored as SUCCESS already, with
            other calls', so that the tracer need not; None where the tracer is to store it.
    """

    __slots__ = ("_began", "_ended", "_error", "_read", "_stored_id", "_task", "_value")

    def __init__(
        self,
        task: Any,
        value: Any,
        error: BaseException | None,
        began: float,
        ended: float,
        stored_id: str | None = None,
    ) -> None:
        self._task = task
        self._value = value
        self._error = error
        self._began = began
        self._ended = ended
        self._read = False
        self._stored_id = stored_id

    def has_stored(self, task_id: str, state: str) -> bool:
        """Whether this state, the call's own outcome, is stored already."""
        return state == states.SUCCESS and task_id == self._stored_id

    def is_for(self, task: Any) -> bool:
        """Whether the outcome is that task's, and not given yet."""
        return self._task is task

    def give(self) -> Any:
        """Return or raise the outcome, once."""
        self._task = None
        value, error, self._value, self._error = self._value, self._error, None, None
        if error is None:
            return value
        try:
            raise error
        finally:
            del error  # the traceback holds this frame: without this, a cycle for each failure

    def clock(self) -> float:
        """When the coroutine began, at the tracer's first look; then when it ended."""
        if self._read:
            return self._ended
        self._read = True
        return self._began


class _Settling(threading.local):
    call: SettledCall | None = None


settling = _Settling()
"""What the current thread settles at the moment, if anything."""


def tracer_clock() -> float:
    """``time.monotonic`` for a tracer that may be settling."""
    call = settling.call
    return time.monotonic() if call is None else call.clock()
