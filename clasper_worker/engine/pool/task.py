"""Celery tasks whose body is a coroutine.

::

    @app.task(base=CoroutineTask, bind=True, name="clasper.send")
    async def send(self: CoroutineTask, **kwargs: Any) -> dict[str, Any]: ...

To Celery's tracer such a task is synchronous: calling it gives the outcome of its coroutine.
Under the asyncio pool the coroutine has run before and its outcome is at hand; under any other
pool, and in a caller's process, the call runs it on the process's background loop and waits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine
from typing import Any

import celery
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.exceptions import Retry

from clasper_worker.engine.pool.bridge import run_coroutine
from clasper_worker.engine.pool.context import current_request
from clasper_worker.engine.pool.traced_call import settling, tracer_clock


class CoroutineTask(celery.Task):
    """Base of tasks declared with ``async def``.

    Inside the body ``self.request`` is the task's request as usual, and ``raise self.retry(…)``
    works; the message is sent once the coroutine has ended, so it does not block the loop.

    ``task_prerun`` and ``before_start`` fire when the outcome is settled, so under the asyncio
    pool after the coroutine has run. What must come first belongs into the coroutine.
    """

    abstract = True
    Request = "clasper_worker.engine.pool.request:CoroutineRequest"
    _tracks_started: bool | None = None
    _tracer: Callable[..., Any] | None = None
    _settling_tracer: Callable[..., Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        body = cls.__dict__.get("run")
        if body is not None and not inspect.iscoroutinefunction(inspect.unwrap(_function(body))):
            raise TypeError(f"the body of {cls.__name__!r}, a CoroutineTask, must be `async def`")

    @classmethod
    def bind(cls, app: celery.Celery) -> celery.Celery:
        """Bind to the app, as every Celery task; keeps ``track_started`` for our property."""
        bound: celery.Celery = super().bind(app)
        if "track_started" in cls.__dict__:  # from the decorator, or from task_annotations
            cls._tracks_started = cls.__dict__["track_started"]
            del cls.track_started
        if cls._tracks_started is None:
            cls._tracks_started = app.conf.task_track_started
        return bound

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the coroutine, or take its outcome if the pool ran it, and return or raise that.

        From a coroutine await ``task.run(...)`` instead.
        """
        if "_body" in self.__dict__:  # autoretry_for: Celery's wrapper calls _orig_run
            return self.run(*args, **kwargs)
        return self._outcome(*args, **kwargs)

    def coroutine(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """A new coroutine of the body, not started."""
        body: Callable[..., Coroutine[Any, Any, Any]] = self.__dict__.get("_body") or self.run
        return body(*args, **kwargs)

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: BaseException | None = None,
        throw: bool = True,
        **options: Any,
    ) -> Retry:
        """Retry the task, as Celery's. Raises; with ``throw=False`` it blocks for the sending."""
        request = current_request()
        limit = options.get("max_retries") or self.max_retries
        if (
            request is None
            or not throw
            or request.called_directly
            or (limit is not None and request.retries >= limit)
        ):
            retry: Retry = super().retry(args, kwargs, exc, throw, **options)
            return retry
        raise _RetryWhenEnded(exc, {"args": args, "kwargs": kwargs, "exc": exc, **options})

    @property
    def request(self) -> Context:
        """The request of the running coroutine, or else the one that the tracer set."""
        running = current_request()
        if running is not None and getattr(running, "task", self.name) == self.name:
            return running
        return self._get_request()

    @property
    def _orig_run(self) -> Callable[..., Any]:
        """What Celery's wrapper for ``autoretry_for`` calls: the outcome, not a coroutine."""
        if "_body" not in self.__dict__:
            raise AttributeError("_orig_run")  # Celery asks by hasattr whether it wrapped already
        return self._outcome

    @_orig_run.setter
    def _orig_run(self, body: Callable[..., Coroutine[Any, Any, Any]]) -> None:
        self.__dict__["_body"] = body

    @property
    def track_started(self) -> bool:
        """Whether the tracer is to store STARTED. Not while settling: the coroutine has ended."""
        return bool(self._tracks_started) and settling.call is None

    @track_started.setter
    def track_started(self, value: bool) -> None:
        self._tracks_started = value

    @property
    def __trace__(self) -> Callable[..., Any] | None:
        """Celery's tracer of this task; while settling, the same with the coroutine's clock."""
        if settling.call is None:
            return self._tracer
        if self._settling_tracer is None:
            self._settling_tracer = build_tracer(
                self.name, self, app=self.app, monotonic=tracer_clock
            )
        return self._settling_tracer

    @__trace__.setter
    def __trace__(self, tracer: Callable[..., Any] | None) -> None:
        self._tracer = tracer
        self._settling_tracer = None

    def _outcome(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._run_or_settle(args, kwargs)
        except _RetryWhenEnded as retry:
            arguments = retry.arguments
        return super().retry(**arguments)  # raises what Celery's tracer expects

    def _run_or_settle(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        call = settling.call
        if call is not None and call.is_for(self):
            return call.give()
        if self.request_stack.top is not None:
            return self._run(args, kwargs)
        self.push_request(args=args, kwargs=kwargs)  # called directly, without a worker
        try:
            return self._run(args, kwargs)
        finally:
            self.pop_request()

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request: Context = self.request_stack.top
        # Where neither is given by the message, its class's limits are in force.
        request.soft_time_limit = request.soft_time_limit or self.soft_time_limit
        request.time_limit = request.time_limit or self.time_limit
        return run_coroutine(self.coroutine(*args, **kwargs), request=request)


class _RetryWhenEnded(Retry):
    """Leaves the coroutine in place of Celery's Retry, whose message is not sent yet."""

    def __init__(self, exc: BaseException | None, arguments: dict[str, Any]) -> None:
        super().__init__(exc=exc)
        self.arguments = arguments


def _function(attribute: Any) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(attribute, "__func__", attribute)
    return function
