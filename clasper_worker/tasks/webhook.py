"""``clasper.webhook``: one attempt to deliver one webhook."""

from __future__ import annotations

from typing import Any

import structlog

from clasper_worker.celery import app
from clasper_worker.config.names import WEBHOOK_TASK
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.delivery import TurnDelivery
from clasper_worker.errors import WebhookUnavailableError
from clasper_worker.process import DOOM, WEBHOOK_SENDER
from clasper_worker.tasks.base import ClasperTask, typed_errors
from clasper_worker.webhooks.backoff import RetrySchedule
from clasper_worker.webhooks.payload import Delivery

log = structlog.get_logger(__name__)


@app.task(
    base=ClasperTask,
    bind=True,
    name=WEBHOOK_TASK,
    max_retries=None,  # the schedule says when it is enough
    soft_time_limit=20,
    time_limit=30,
)
async def webhook(self: ClasperTask, **kwargs: Any) -> dict[str, Any]:
    """One attempt to deliver one webhook (`clasper_worker.webhooks`)."""
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    doom = await DOOM.get()
    lease = TurnDelivery.of(self.request).token
    async with doom.of_failures(lease), typed_errors("webhook"):
        delivery = Delivery.parse(kwargs)
        structlog.contextvars.bind_contextvars(turn_id=delivery.turn_id, user_id=delivery.user_id)
        attempt = (self.request.retries or 0) + 1
        sender = await WEBHOOK_SENDER.get()
        try:
            answer = await sender.deliver(delivery)
        except WebhookUnavailableError as exc:
            schedule = RetrySchedule.from_settings(get_settings())
            pause = schedule.pause(attempt, retry_after=exc.details.get("retry_after"))
            if pause is None:
                raise
            log.warning("webhook.retried", attempt=attempt, pause=round(pause, 1), reason=str(exc))
            cause = exc.with_traceback(None)
        else:
            log.info("webhook.delivered", attempt=attempt, http_status=answer.status)
            return {"status": "delivered", "http_status": answer.status, "attempts": attempt}
        raise self.retry(exc=cause, countdown=pause)
