"""One task in the asyncio pool, from its acceptance to the report of its outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from celery.app.task import Context
from kombu.serialization import loads

from clasper_worker.engine.pool.soft_limit import Run
from clasper_worker.engine.pool.task import CoroutineTask


@dataclass(frozen=True, slots=True)
class Limits:
    """A job's time limits in seconds from its start; None is no limit."""

    soft: float | None = None
    hard: float | None = None

    def overridden(self, soft: float | None, hard: float | None) -> Limits:
        """These limits, except where others are given."""
        if soft is None and hard is None:
            return self
        return Limits(soft or self.soft, hard or self.hard)


@dataclass(frozen=True, slots=True)
class Callbacks:
    """How the pool reports to Celery's ``Request``; all are called on the consumer's thread."""

    on_accepted: Callable[..., object] | None = None
    on_result: Callable[..., object] | None = None
    on_error: Callable[..., object] | None = None
    on_timeout: Callable[..., object] | None = None


class Job:
    """A task that the pool was given. It is also what ``apply_async`` returns.

    Several may want to decide how a job ends: its coroutine by ending, a time limit, a revocation,
    a shutdown. Whoever gets :meth:`claim` decides; the others leave it alone. So no job is both
    revoked and successful.

    Args:
        pid: the pool's name for it, which stands in for a process id.
        target: Celery's trace function.
        args: the trace function's arguments.
        callbacks: whom to tell.
        limits: its time limits.
        stop: cancels its coroutine.

    Attributes:
        task: the coroutine task; None for a task that is not one.
        call: the decoded message; None before it has been read.
        run: its coroutine; None before it has started.
        began: when it started, by ``time.monotonic()``.
        ended: when its coroutine ended.
        announcing: whether its STARTED state is being written.
        is_settling: whether its outcome is being stored, so that a report will follow.
    """

    __slots__ = (
        "__weakref__",
        "_claims",
        "announcing",
        "args",
        "began",
        "call",
        "callbacks",
        "ended",
        "is_settling",
        "limits",
        "pid",
        "run",
        "stop",
        "target",
        "task",
        "timer",
    )

    def __init__(
        self,
        pid: int,
        target: Callable[..., Any],
        args: tuple[Any, ...],
        callbacks: Callbacks,
        limits: Limits,
        stop: Callable[[Job], object],
    ) -> None:
        self.pid = pid
        self.target = target
        self.args = args
        self.callbacks = callbacks
        self.limits = limits
        self.stop = stop
        self.task: CoroutineTask | None = None
        self.call: Call | None = None
        self.run: Run | None = None
        self.timer: Any = None
        self.began = 0.0
        self.ended = 0.0
        self.announcing = False
        self.is_settling = False
        self._claims: list[bool] = [True]

    @property
    def task_id(self) -> str:
        """The Celery id of the task, by which no two jobs run at a time."""
        return str(self.args[1]) if len(self.args) > 1 else str(self.pid)

    def claim(self) -> bool:
        """Take the right to decide how this job ends; False if it is taken."""
        try:
            # Atomic, and unlike a lock safe in a signal handler that interrupts its holder.
            return self._claims.pop()
        except IndexError:
            return False

    @property
    def is_claimed(self) -> bool:
        """Whether its end has been decided."""
        return not self._claims

    def terminate(self, signal: int | None = None) -> None:
        """Stop it, unless its end has been decided. Celery calls this after ``terminate_job``."""
        del signal
        if self.claim():
            self.stop(self)


@dataclass(frozen=True, slots=True)
class Call:
    """A decoded task message: what to call, and as what.

    Attributes:
        name: the task's name.
        task_id: its Celery id.
        request: Celery's request dictionary; the tracer completes it.
        args: the body's positional arguments.
        kwargs: the body's keyword arguments.
        embed: callbacks, errbacks, chain and chord.
    """

    name: str
    task_id: str
    request: dict[str, Any] = field(repr=False)
    args: Any = field(repr=False)
    kwargs: Any = field(repr=False)
    embed: dict[str, Any] = field(repr=False)

    @classmethod
    def decode(cls, trace_args: tuple[Any, ...], accept: Any) -> Call:
        """Read the trace function's arguments.

        Raises:
            kombu.exceptions.ContentDisallowed: the message is not of an accepted content type.
            kombu.exceptions.DecodeError: its body cannot be read.
        """
        name, task_id, request, body, content_type, encoding = trace_args
        if content_type:
            body = loads(body, content_type, encoding, accept=accept)
        args, kwargs, embed = body
        return cls(name, task_id, request, args, kwargs, embed or {})

    def trace_args(self) -> tuple[Any, ...]:
        """The trace function's arguments again, decoded, so that it need not do it once more."""
        return (
            self.name,
            self.task_id,
            self.request,
            (self.args, self.kwargs, self.embed),
            None,
            None,
        )

    def context(self, limits: Limits) -> Context:
        """The request as ``self.request`` shows it, with the limits that are in force."""
        context = Context(
            {**self.request, **self.embed},
            args=self.args,
            kwargs=self.kwargs,
            called_directly=False,
            is_eager=False,
        )
        context.soft_time_limit = limits.soft
        context.time_limit = limits.hard
        return context
