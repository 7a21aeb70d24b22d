"""``GET /metrics`` of the shim: its own figures, and the queues'."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from celery import signals
from fastapi import APIRouter, Depends
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from clasper_worker.observability.exporter import figures
from clasper_worker.shim.auth import DaemonKey
from clasper_worker.shim.broker_figures import BrokerWatch

# Seconds: an enqueue takes milliseconds, and `?wait=` up to ten minutes.
_BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0, 600.0)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class ShimFigures:
    """The shim's own figures.

    Attributes:
        requests: by route, method and status.
        seconds: to the beginning of the answer, by route and method.
        streams: answers of server-sent events that are under way.
        waiting: requests that wait for a turn's end.
        enqueued: jobs by task.
    """

    requests: Counter
    seconds: Histogram
    streams: Gauge
    waiting: Gauge
    enqueued: Counter


@lru_cache(maxsize=1)
def shim_figures() -> ShimFigures:
    """Those of this process; made when they are first needed."""
    made = ShimFigures(
        Counter(
            "clasper_http_requests_total",
            "Requests by route, method and status.",
            ["route", "method", "status"],
        ),
        Histogram(
            "clasper_http_request_seconds",
            "From a request's headers to the beginning of its answer.",
            ["route", "method"],
            buckets=_BUCKETS,
        ),
        Gauge(
            "clasper_http_event_streams",
            "Answers of server-sent events under way.",
            multiprocess_mode="livesum",
        ),
        Gauge(
            "clasper_http_waiting_requests",
            "Requests that wait for a turn's end (?wait=).",
            multiprocess_mode="livesum",
        ),
        Counter("clasper_jobs_enqueued_total", "Jobs that were enqueued, by task.", ["task"]),
    )
    signals.after_task_publish.connect(_count_enqueued, weak=False, dispatch_uid="clasper-shim")
    return made


def _count_enqueued(sender: str, **_: Any) -> None:
    shim_figures().enqueued.labels(sender).inc()


class Measured:
    """ASGI middleware that counts requests by the route's template, never by the path itself.

    Args:
        app: the app behind it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._figures = shim_figures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        is_counted = is_stream = False

        def count(status: str) -> None:
            nonlocal is_counted
            is_counted = True
            route = getattr(scope.get("route"), "path", None) or "unmatched"
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._figures.requests.labels(route, method, status).inc()
            self._figures.seconds.labels(route, method).observe(time.monotonic() - began)

        async def measured(message: Message) -> None:
            nonlocal is_stream
            if message["type"] == "http.response.start":
                count(str(message["status"]))
                if not is_stream and _is_event_stream(message):
                    is_stream = True
                    self._figures.streams.inc()
            await send(message)

        try:
            await self._app(scope, receive, measured)
        except Exception:
            if not is_counted:
                count("500")  # answered outside of all middleware
            raise
        finally:
            if is_stream:
                self._figures.streams.dec()


def _is_event_stream(start: Message) -> bool:
    return any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream")
        for name, value in start.get("headers", ())
    )


def metrics_routes(watch: BrokerWatch, keys: tuple[str, ...]) -> APIRouter:
    """The route.

    Args:
        watch: tells of the queues.
        keys: of which one is wanted; empty where it is open.
    """
    # For Prometheus, not for clients: they need no description of it.
    router = APIRouter(
        dependencies=[Depends(DaemonKey(keys, as_password=True))], include_in_schema=False
    )

    @router.get("/metrics")
    async def metrics() -> Response:
        registry = CollectorRegistry()
        registry.register(await watch.read())
        return Response(
            figures() + generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
        )

    return router
