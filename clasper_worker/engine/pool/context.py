"""What a running coroutine can know about the Celery task it is.

``task.request`` is set by Celery's tracer, per thread; a coroutine lives on another thread than
the tracer. These are set per coroutine instead, alike under every pool.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from celery.app.task import Context

request_source: ContextVar[Callable[[], Context] | None] = ContextVar(
    "clasper_request", default=None
)
"""Gives the running coroutine's request. A function: most coroutines never ask, so it is not
made in advance."""


@dataclass(frozen=True, slots=True)
class JobContext:
    """The Celery task that the running coroutine is.

    Attributes:
        id: the Celery task's id.
        name: the task's name, such as ``clasper.send``.
        retries: how often it has been retried.
        redelivered: whether the broker has delivered this message before.
        hostname: the worker's node name, such as ``celery@host``; None outside a worker.
        queue: the routing key it came by; None outside a worker.
        root_id: the id of the first task of its workflow.
        parent_id: the id of the task that sent it, if a task did.
        soft_limit: seconds until SoftTimeLimitExceeded, if limited by its message or its class.
        hard_limit: seconds until it is stopped for good, likewise.
        eager: whether it runs in the caller's process, without a worker.
    """

    id: str | None
    name: str | None
    retries: int = 0
    redelivered: bool = False
    hostname: str | None = None
    queue: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    soft_limit: float | None = None
    hard_limit: float | None = None
    eager: bool = False


def current_request() -> Context | None:
    """Celery's own request of the running coroutine; None outside a coroutine task."""
    source = request_source.get()
    return None if source is None else source()


def current_job() -> JobContext | None:
    """The running coroutine's Celery task as typed, frozen data; None outside one."""
    request = current_request()
    return None if request is None else describe(request)


def describe(request: Context) -> JobContext:
    """Read a Celery request into a :class:`JobContext`."""
    delivery: dict[str, Any] = request.delivery_info or {}
    return JobContext(
        id=request.id,
        name=getattr(request, "task", None),
        retries=request.retries or 0,
        redelivered=bool(delivery.get("redelivered")),
        hostname=request.hostname,
        queue=delivery.get("routing_key"),
        root_id=request.root_id,
        parent_id=request.parent_id,
        soft_limit=request.soft_time_limit,
        hard_limit=request.time_limit,
        eager=bool(request.is_eager),
    )
