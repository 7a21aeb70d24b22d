"""Report a job's end from its own task, before its message is acknowledged."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from celery.exceptions import Reject

from clasper_worker.config.settings import get_settings
from clasper_worker.errors import (
    ClasperError,
    StateUnavailableError,
)
from clasper_worker.periodic.notification import notification_of
from clasper_worker.process import JOBS, OUTBOX, RUNTIME
from clasper_worker.turn.models import TurnResult
from clasper_worker.turn.request import RequestLimits
from clasper_worker.webhooks.payload import Failure, completed, ended_turn, failed

log = structlog.get_logger(__name__)


@asynccontextmanager
async def _or_again() -> AsyncIterator[None]:
    """Give the turn's message back where not all who wait for its end could be told.

    The turn's next run posts nothing again, and tells them.
    """
    try:
        yield
    except StateUnavailableError as exc:
        log.error("turn.end_not_told", reason=str(exc))  # noqa: TRY400 - no fault of ours
        raise Reject(str(exc), requeue=True) from None


async def _report_end(
    job_id: str, kwargs: dict[str, Any], end: TurnResult | ClasperError, *, mark: object
) -> None:
    """See to what the turn's end asks for, before the turn is acknowledged.

    That is the webhook, if it has one, and the acknowledgement of the notification that it answers.
    The first is enqueued, the second given to the backend, or enqueued where that does not take it.

    Raises:
        Reject: the broker did not take it, so that it keeps the turn's own message. The turn's
            next run posts nothing again, and tries to enqueue it again.
    """
    notification = notification_of(mark, kwargs)
    if notification is not None:
        try:
            acknowledgements = (await JOBS.get()).acknowledgements
            if isinstance(end, ClasperError) and not end.details.get("posted"):
                await acknowledgements.failed(notification, end)
            else:
                await acknowledgements.answered(notification, (await RUNTIME.get()).internal)
        except StateUnavailableError as exc:
            log.error("dispatch.acknowledgement_not_enqueued", reason=str(exc))  # noqa: TRY400 - no fault of ours
            raise Reject(str(exc), requeue=True) from None
    if kwargs.get("webhook") is None:
        return
    turn = ended_turn(kwargs, job_id, RequestLimits.from_settings(get_settings()))
    if turn is None:
        return
    if isinstance(end, TurnResult):
        delivery = completed(turn, end)
    else:
        delivery = failed(turn, Failure.of(end))
    try:
        await (await OUTBOX.get()).put(delivery)
    except StateUnavailableError as exc:
        log.error("webhook.not_enqueued", delivery_id=delivery.delivery_id, reason=str(exc))  # noqa: TRY400 - no fault of ours
        raise Reject(str(exc), requeue=True) from None
