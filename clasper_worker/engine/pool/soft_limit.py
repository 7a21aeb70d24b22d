"""Driving one coroutine so that it can be stopped from outside, softly or for good.

A soft time limit must reach the coroutine as :exc:`~celery.exceptions.SoftTimeLimitExceeded`,
but asyncio can only cancel a task, not throw into it. :class:`Run` stands between the task and
the coroutine and turns that one cancellation into the exception.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, ContextVar
from types import TracebackType, coroutine
from typing import Any, Self

from celery.exceptions import SoftTimeLimitExceeded

_current_run: ContextVar[Run | None] = ContextVar("clasper_run", default=None)


class _SoftTimeLimit(asyncio.CancelledError, SoftTimeLimitExceeded):
    """What a coroutine sees at its soft limit: Celery's exception, and a cancellation as well.

    As a cancellation it makes ``wait_for``, task groups that are being left and connection pools
    clean up as they must. It leaves :class:`Run` as the plain Celery exception.
    """


INSIST_AFTER = 2.0
"""Seconds after which a cancellation that had no effect is repeated.

One can get lost: until Python 3.12, ``asyncio.wait_for`` drops a cancellation that arrives as what
it waits for ends, and the Redis client uses it for each command.
"""


class Run:
    """One coroutine on its way, and how it ended. Used on the event loop's thread only.

    Args:
        coro: the coroutine; not started yet.
        on_end: called once, on the loop, when it has ended and ``value`` or ``error`` is set.

    Attributes:
        value: what the coroutine returned.
        error: what it raised; None when it returned. Never a bare ``CancelledError``, which
            Celery would take for the end of the worker.
    """

    insist_after = INSIST_AFTER

    __slots__ = ("_coro", "_on_end", "_scope", "_soft", "_task", "error", "value")

    def __init__(self, coro: Coroutine[Any, Any, Any], on_end: Callable[[], None]) -> None:
        self._coro = coro
        self._on_end = on_end
        self._task: asyncio.Task[None] | None = None
        self._soft: _SoftTimeLimit | None = None
        self._scope: SoftLimitScope | None = None
        self.value: Any = None
        self.error: BaseException | None = None

    @property
    def is_done(self) -> bool:
        """Whether the coroutine has ended."""
        return self._task is None or self._task.done()

    @property
    def place(self) -> str:
        """Where the coroutine waits: ``file:line function`` of the innermost call."""
        place = "nowhere"
        waiting: Any = self._coro
        while waiting is not None:
            frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
            if frame is not None:
                code = frame.f_code
                place = f"{code.co_filename}:{frame.f_lineno} {code.co_name}"
            waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        return place

    def start(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        """Begin to run the coroutine, as a task with ``context``."""
        self._task = loop.create_task(self._main(), context=context)
        # Not a `finally` in the task: one cancelled before its first step never gets there.
        self._task.add_done_callback(self._ended)

    def cancel(self) -> None:
        """Cancel the coroutine; to be repeated while it does not heed it."""
        if self._task is not None:
            self._task.cancel()

    def limit_softly(self, seconds: float | None) -> None:
        """Raise SoftTimeLimitExceeded where the coroutine waits; it may catch it and go on."""
        if self._task is None or self._task.done():
            return
        if self._scope is not None:
            self._scope.exceed(seconds)
            self._insist(self._task, self._scope)
        else:
            self._soft = _SoftTimeLimit(seconds)
            self._task.cancel()

    def _insist(self, task: asyncio.Task[None], scope: SoftLimitScope) -> None:
        if self._scope is scope:
            scope.cancellations += 1
            task.cancel()
            task.get_loop().call_later(self.insist_after, self._insist, task, scope)

    async def _main(self) -> None:
        _current_run.set(self)
        try:
            self.value = await self._drive()
        except BaseException as exc:  # noqa: BLE001  # SystemExit would end the loop for all
            self.error = _plain(exc)

    @coroutine
    def _drive(self) -> Generator[Any, Any, Any]:
        """Pass what the coroutine awaits up to the task, and the answers down."""
        step: Callable[[Any], Any] = self._coro.send
        answer: list[Any] = [None]  # popped when used: a frame that keeps an exception is a cycle
        while True:
            try:
                waiting_for = step(answer.pop())
            except StopIteration as stop:
                return stop.value
            try:
                answer.append((yield waiting_for))
                step = self._coro.send
            except BaseException as exc:  # noqa: BLE001  # it is the coroutine's to handle
                answer.append(exc)
                step = self._coro.throw
            if self._soft is not None:
                answer[0], self._soft = self._soft, None
                step = self._coro.throw
                self._uncancel()

    def _uncancel(self) -> None:
        # The cancellation has been delivered: what the coroutine does next (post an outcome, in
        # timeouts and task groups of its own) must not look cancelled.
        if self._task is not None:
            self._task.uncancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled():  # before its first step
            self.error = _plain(self._soft or asyncio.CancelledError())
        self._coro.close()
        self._on_end()


class SoftLimitScope:
    """Makes the soft time limit a pure cancellation inside, and the exception at its end.

    SoftTimeLimitExceeded is an ``Exception``: a library that catches those, to retry or to wrap
    them, swallows the limit. Inside this scope the limit arrives as a cancellation, which such
    libraries let pass, and leaves it as SoftTimeLimitExceeded. In a coroutine without limits the
    scope does nothing.

    Example:
        >>> try:
        ...     async with SoftLimitScope():
        ...         await talk_to_the_model()
        ... except SoftTimeLimitExceeded:
        ...     await say_that_it_took_too_long()
        ...     raise
    """

    def __init__(self) -> None:
        self._run: Run | None = None
        self._exceeded = False
        self._seconds: float | None = None
        self.cancellations = 0

    def exceed(self, seconds: float | None) -> None:
        """Note that the limit has passed; the cancellation is under way."""
        self._exceeded = True
        self._seconds = seconds

    async def __aenter__(self) -> Self:
        run = _current_run.get()
        if run is not None and run._task is asyncio.current_task() and run._scope is None:  # noqa: SLF001  # the two are one mechanism
            self._run = run
            run._scope = self  # noqa: SLF001
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._run is None:
            return
        self._run._scope = None  # noqa: SLF001
        if not self._exceeded:
            return
        for _ in range(self.cancellations):
            self._run._uncancel()  # noqa: SLF001
        if exc_type is not None:
            raise SoftTimeLimitExceeded(self._seconds) from exc


def _plain(exc: BaseException) -> BaseException:
    """The error as Celery should see it: our own classes and asyncio's cancellation unwrapped."""
    soft = exc.subgroup(_SoftTimeLimit) if isinstance(exc, BaseExceptionGroup) else exc
    while isinstance(soft, BaseExceptionGroup):
        soft = soft.exceptions[0]
    plain = exc
    if isinstance(soft, _SoftTimeLimit):
        plain = SoftTimeLimitExceeded(*soft.args)
    elif isinstance(exc, asyncio.CancelledError):
        # What `Future.result()` raises for it in threads: an Exception, so a task can fail of it.
        text = str(exc) or "the coroutine was cancelled from within"
        plain = concurrent.futures.CancelledError(text)
    return plain.with_traceback(exc.__traceback__)
