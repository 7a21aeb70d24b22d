"""The end of a job that was cancelled, where Celery's worker cannot know of that."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import structlog
from celery.app.task import Context
from celery.exceptions import Reject
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from clasper_worker.completion.completion import Completion
from clasper_worker.config.names import SEND_TASK
from clasper_worker.engine.queue.delivery import Lease, TurnDelivery
from clasper_worker.engine.queue.message import TaskMessage
from clasper_worker.process import CANCELLED
from clasper_worker.turn.call import TurnCall

log = structlog.get_logger(__name__)


async def fence_of(delivery: TurnDelivery, task: str, job_id: str, kwargs: Any) -> Lease:
    """What a run makes sure by, before it acts, that it still may.

    Args:
        delivery: of its message.
        task: the task's name.
        job_id: the Celery task's id.
        kwargs: its arguments.
    """
    runs = await CANCELLED.get()
    if delivery.token is not None or runs is None:
        return delivery.lease()
    return runs.of(job_id, TaskMessage(job_id, task, kwargs).turn_id)


async def end_revoked(app: Any, task: str, request: Context, kwargs: Mapping[str, Any]) -> None:
    """Store and announce that the job is revoked, as Celery's worker does of those it knows.

    Raises:
        Reject: the result backend does not answer, so that the broker keeps the message.
    """
    try:
        await asyncio.to_thread(_end_revoked, app, task, request, kwargs)
    except (RedisError, OSError, RuntimeError) as exc:  # RuntimeError: Celery, tired of trying
        log.warning("job.cancelled_not_stored", job_id=request.id, error=type(exc).__name__)
        raise Reject("its end could not be stored", requeue=True) from None


def _end_revoked(app: Any, task: str, request: Context, kwargs: Mapping[str, Any]) -> None:
    log.info("job.cancelled", job_id=request.id)
    if task == SEND_TASK:
        Completion(app).revoked(TurnCall(request.id, kwargs), "revoked")
    app.backend.mark_as_revoked(request.id, "revoked", request=request, store_result=True)
    try:
        with app.events.default_dispatcher() as events:
            events.send(
                "task-revoked", uuid=request.id, terminated=False, signum=None, expired=False
            )
    except (OperationalError, OSError) as exc:  # an event is nobody's only word of it
        log.warning("job.cancelled_not_announced", job_id=request.id, error=type(exc).__name__)
