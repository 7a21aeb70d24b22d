"""From the end of a turn to the queue of webhooks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.config.names import WEBHOOK_QUEUE, WEBHOOK_TASK
from clasper_worker.engine.pool.soft_limit import SoftLimitScope
from clasper_worker.engine.pool.threads import ThreadCrew
from clasper_worker.engine.redis.faults import redis_fault, refusal_of
from clasper_worker.errors import StateUnavailableError
from clasper_worker.webhooks.payload import Delivery

log = structlog.get_logger(__name__)

Publish = Callable[[Delivery], object]
"""Puts a delivery on the queue; blocks, and raises what `redis_faults` tells apart."""


_THREADS = 4
_PAUSES = (0.2, 1.0, 3.0, 6.0)


def publish(app: Celery, delivery: Delivery) -> None:
    """Put a delivery on the queue of webhooks, from a thread that may block.

    Raises:
        kombu.exceptions.OperationalError: the broker cannot be reached.
        redis.exceptions.RedisError: it did not take it.
    """
    app.tasks[WEBHOOK_TASK].apply_async(
        kwargs=delivery.as_arguments(),
        task_id=delivery.delivery_id,
        queue=WEBHOOK_QUEUE,
    )


class Outbox:
    """Puts deliveries on their queue without blocking the event loop.

    Args:
        publish: puts one there; called in a thread.
        pauses: seconds between attempts, while the broker does not take it.
    """

    def __init__(self, publish: Publish, *, pauses: Sequence[float] = _PAUSES) -> None:
        self._publish = publish
        self._pauses = pauses
        self._crew = ThreadCrew("clasper-webhook-outbox", _THREADS)

    async def put(self, delivery: Delivery) -> None:
        """Enqueue a delivery, even if the turn's soft time limit passes meanwhile.

        Raises:
            StateUnavailableError: the broker did not take it.
        """
        sending = asyncio.ensure_future(self._send(delivery))
        try:
            try:
                async with SoftLimitScope():
                    await asyncio.shield(sending)
            except SoftTimeLimitExceeded:
                # The turn has ended, in time: only its report is under way.
                await sending
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            raise _not_taken(exc) from exc
        log.info("webhook.enqueued", event_type=delivery.event, delivery_id=delivery.delivery_id)

    async def _send(self, delivery: Delivery) -> None:
        for pause in self._pauses:
            try:
                await self._crew.call(self._publish, delivery)
            except Exception as exc:
                if redis_fault(exc) is None:
                    raise
                log.warning("webhook.broker_unavailable", error=refusal_of(exc))
                await asyncio.sleep(pause)
            else:
                return
        await self._crew.call(self._publish, delivery)

    async def close(self) -> None:
        """Let what is being enqueued be enqueued, for a moment."""
        self._crew.close(0.5)


def _not_taken(exc: Exception) -> StateUnavailableError:
    return StateUnavailableError(
        f"The broker did not take the turn's webhook ({refusal_of(exc)}): check CELERY_BROKER_URL"
    )
