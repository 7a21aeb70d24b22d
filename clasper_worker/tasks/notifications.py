"""``clasper.dispatch``, ``clasper.delivered``: notifications become turns, acknowledged later."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import structlog

from clasper_worker.celery import app
from clasper_worker.config.names import DELIVERED_TASK, DISPATCH_TASK
from clasper_worker.errors import BackendError
from clasper_worker.periodic.acknowledge import pause_after
from clasper_worker.periodic.notification import NotificationKey
from clasper_worker.process import JOBS, RUNTIME
from clasper_worker.tasks.base import ClasperTask, typed_errors

log = structlog.get_logger(__name__)


@app.task(base=ClasperTask, bind=True, name=DISPATCH_TASK, send_events=False)  # a tick
async def dispatch(self: ClasperTask) -> dict[str, Any]:
    """One poll of undelivered notifications (`clasper_worker.periodic.dispatch`)."""
    async with typed_errors("dispatch"):
        backend = (await RUNTIME.get()).internal
        dispatcher = (await JOBS.get()).dispatcher(backend)
        if not backend.has_token:
            return {"status": "unconfigured", "variable": "INTERNAL_API_TOKEN"}
        return asdict(await dispatcher.poll(self.request.id))


@app.task(base=ClasperTask, bind=True, name=DELIVERED_TASK, max_retries=None)
async def delivered(self: ClasperTask, *, user_id: str, notification_id: str) -> dict[str, Any]:
    """Acknowledge one notification whose reply is posted; tried again until that is taken."""
    structlog.contextvars.bind_contextvars(user_id=user_id, notification_id=notification_id)
    async with typed_errors("dispatch"):
        backend = (await RUNTIME.get()).internal
        acknowledgements = (await JOBS.get()).acknowledgements
        attempt = (self.request.retries or 0) + 1
        try:
            await acknowledgements.acknowledge(backend, NotificationKey(user_id, notification_id))
        except BackendError as exc:
            pause = pause_after(attempt)
            if pause is None:
                raise  # the next poll finds it still listed
            log.warning("dispatch.acknowledgement_retried", attempt=attempt, reason=str(exc))
            cause = exc.with_traceback(None)
        else:
            return {"status": "delivered", "attempts": attempt}
        raise self.retry(exc=cause, countdown=pause)
