"""What the queues come to, for `/metrics`: Redis is asked seldom, and not for long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

import structlog
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.queue_status import READ_STATUS, BrokerStatus, broker_status_of
from clasper_worker.engine.queue.scheduler import SCHEDULED
from clasper_worker.engine.redis.connections import blocking_client
from clasper_worker.periodic.dispatch import LAST_POLL, LAST_POLL_SECONDS

log = structlog.get_logger(__name__)

_KEPT_SECONDS = 2.0  # an answer, or that there was none: several scrapers cost as one
_PATIENCE_SECONDS = 1.5  # of a scrape
_ANSWER_SECONDS = 1.0
_LAST_POLL = f"clasper:jobs:{LAST_POLL}"


@dataclass(frozen=True, slots=True, eq=False)  # a registry wants it hashable
class BrokerFigures:
    """What one look at Redis told; a Prometheus collector.

    Attributes:
        is_up: whether Redis answered in time.
        status: of the queues; None where it did not, or the broker is not Redis.
        dispatcher_lag: seconds for which the next poll for notifications is overdue; None where
            there was none for a day.
    """

    is_up: bool
    status: BrokerStatus | None = None
    dispatcher_lag: float | None = None

    @property
    def waiting(self) -> int:
        """Messages that wait, on all queues together; 0 where it is not known."""
        return 0 if self.status is None else sum(one.waiting for one in self.status.queues.values())

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus has them."""
        yield _gauge("clasper_redis_up", "Whether Redis told of the queues, in time.", self.is_up)
        if self.dispatcher_lag is not None:
            yield _gauge(
                "clasper_dispatcher_lag_seconds",
                "How long the next poll for notifications is overdue.",
                self.dispatcher_lag,
            )
        status = self.status
        if status is None:
            return
        messages = GaugeMetricFamily(
            "clasper_queue_messages",
            "Messages by queue and where they are.",
            labels=["queue", "state"],
        )
        oldest = GaugeMetricFamily(
            "clasper_queue_oldest_seconds",
            "How long the oldest message that waits has done so; 0 where none does.",
            labels=["queue"],
        )
        for name, queue in status.queues.items():
            for state in ("arrived", "ready", "behind", "running"):
                messages.add_metric([name, state], getattr(queue, state))
            oldest.add_metric([name], queue.oldest or 0.0)
        yield messages
        yield oldest
        yield _gauge("clasper_capped_users", "Users at their cap of turns.", status.capped)
        yield _gauge(
            "clasper_suspect_messages", "Messages that lost several workers.", status.suspect
        )
        yield _gauge("clasper_dead_letters", "Dead letters that are kept.", status.dead)
        yield _gauge(
            "clasper_worker_processes", "Worker processes heard of lately.", status.workers
        )


def _gauge(name: str, meaning: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, meaning, value=float(value))


class BrokerWatch:
    """Asks Redis at most once in two seconds, in a thread, however often it is read.

    Args:
        broker: a client of the broker's Redis; None where the broker is another.
        state: a client of our own state's Redis; the same object where that is the same.
    """

    def __init__(self, broker: Any, state: Any) -> None:
        self._broker = broker
        self._state = state
        self._found = BrokerFigures(is_up=False)
        self._found_at = float("-inf")
        self._asking: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """For the Redis servers that the settings name; connects when it is first read."""

        def client(url: str) -> Any:
            return blocking_client(
                url,
                settings,
                socket_timeout=_ANSWER_SECONDS,
                socket_connect_timeout=_ANSWER_SECONDS,
                retry=Retry(NoBackoff(), 0),
            )

        state = client(settings.redis_url)
        if settings.redis_url == settings.celery_broker_url:
            return cls(state, state)
        scheduled = settings.celery_broker_url.startswith(SCHEDULED)
        return cls(client(settings.celery_broker_url) if scheduled else None, state)

    async def read(self) -> BrokerFigures:
        """What there is to tell, at most two seconds old."""
        asking = self._asking_anew()
        if asking is None:
            return self._found
        done, _ = await asyncio.wait({asking}, timeout=_PATIENCE_SECONDS)
        return self._found if done else BrokerFigures(is_up=False)

    def latest(self) -> BrokerFigures:
        """What was found last, at once; where that is old, Redis is asked for the next call."""
        if self._broker is not None:  # else nothing is known of the queues
            self._asking_anew()
        return self._found

    def _asking_anew(self) -> asyncio.Task[None] | None:
        """What asks Redis now; None while what was found is new enough."""
        if time.monotonic() - self._found_at < _KEPT_SECONDS:
            return None
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask())
        return self._asking

    async def close(self) -> None:
        """Close the connections."""
        if self._asking is not None:
            await asyncio.wait({self._asking}, timeout=_PATIENCE_SECONDS)
        for client in {id(one): one for one in (self._broker, self._state)}.values():
            if client is not None:
                client.close()

    async def _ask(self) -> None:
        try:
            found = await asyncio.to_thread(self._read)
        except (RedisError, OSError) as exc:
            log.warning("metrics.redis_unavailable", error=type(exc).__name__)
            found = BrokerFigures(is_up=False)
        self._found, self._found_at = found, time.monotonic()

    def _read(self) -> BrokerFigures:
        with ExitStack() as stack:
            asked = stack.enter_context(self._state.pipeline(transaction=False))
            asked.get(_LAST_POLL)
            asked.pttl(_LAST_POLL)
            if self._broker is self._state:
                asked.eval(READ_STATUS, 0, *QUEUES)
            due, left, *rest = asked.execute()
        if self._broker is not None and not rest:
            rest = [self._broker.eval(READ_STATUS, 0, *QUEUES)]
        lag = None
        if due is not None and left > 0:
            lag = max(LAST_POLL_SECONDS - left / 1000 - float(due), 0.0)
        return BrokerFigures(True, broker_status_of(rest[0]) if rest else None, lag)
