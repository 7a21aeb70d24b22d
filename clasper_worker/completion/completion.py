"""The one place where a turn's job ends: whoever waits for its end is notified."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery import Celery
from celery.exceptions import Reject

from clasper_worker.config.settings import get_settings
from clasper_worker.errors import ClasperError, StateUnavailableError
from clasper_worker.periodic.acknowledge import leave_alone
from clasper_worker.periodic.notification import NotificationKey, notification_of
from clasper_worker.process import JOBS, OUTBOX, RUNTIME
from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.models import TurnResult
from clasper_worker.webhooks.outbox import publish
from clasper_worker.webhooks.payload import Delivery, Failure, completed, failed

log = structlog.get_logger(__name__)


class Completion:
    """Tells the notification that a turn answers of a job's end, and then the job's webhook.

    ================ ================= ==========================================================
    end              webhook           notification
    ================ ================= ==========================================================
    `succeeded`      agent.completed   acknowledged
    `failed`         agent.error       left alone for a while; acknowledged if it was posted
    `stopped`        agent.error       dispatched again once its note is over
    `revoked`        agent.error       dispatched again once its note is over
    `dead_lettered`  agent.error       left alone for a day
    ================ ================= ==========================================================

    All are called before the job's message is acknowledged. The first two belong to the job's own
    task, which can have its message come again. The others block, and come from the worker, which
    cannot: there a webhook that the broker does not take is logged. They say whether it was taken.

    Args:
        app: whose queues and tasks the webhooks go to.
    """

    def __init__(self, app: Celery) -> None:
        self._app = app

    async def succeeded(self, call: TurnCall, result: TurnResult) -> None:
        """The turn has a result.

        Raises:
            Reject: it could not be sent to all, so that the broker keeps the job's message. The
                turn's next run posts nothing again, and sends it.
        """
        await self._answer(call)
        await self._enqueue(completed(call, result))

    async def failed(self, call: TurnCall, error: ClasperError) -> None:
        """The turn has failed for good.

        Raises:
            Reject: as for `succeeded`.
        """
        await self._answer(call, error)
        await self._enqueue(failed(call, Failure.of(error)))

    def stopped(self, call: TurnCall, error: ClasperError) -> bool:
        """The worker has ended the turn while it ran, for good."""
        return self._publish(call, Failure.of(error))

    def revoked(self, call: TurnCall, reason: str) -> bool:
        """The job was cancelled or has expired: see `Failure.of_revoked`."""
        return self._publish(call, Failure.of_revoked(reason))

    def dead_lettered(self, call: TurnCall, error: ClasperError) -> bool:
        """The job's message was given up.

        Raises:
            RedisError: the notification's note could not be left, and nothing was sent.
        """
        key = _notification(call)
        if key is not None:
            leave_alone(key, get_settings())
        return self._publish(call, Failure.of(error))

    async def _answer(self, call: TurnCall, error: ClasperError | None = None) -> None:
        key = _notification(call)
        if key is None:
            return
        with or_again("dispatch.acknowledgement_not_enqueued"):
            acknowledgements = (await JOBS.get()).acknowledgements
            if error is None or error.details.get("posted"):
                await acknowledgements.answered(key, (await RUNTIME.get()).internal)
            else:
                await acknowledgements.failed(key, error)

    async def _enqueue(self, delivery: Delivery | None) -> None:
        if delivery is not None:
            with or_again("webhook.not_enqueued", delivery_id=delivery.delivery_id):
                await (await OUTBOX.get()).put(delivery)

    def _publish(self, call: TurnCall, failure: Failure) -> bool:
        try:
            delivery = failed(call, failure)
            if delivery is not None:
                publish(self._app, delivery)
        except Exception as exc:  # noqa: BLE001 - the turn's end must not fail of its report
            log.error("webhook.not_enqueued", job_id=call.job_id, error=type(exc).__name__)  # noqa: TRY400 - its text may be private
            return False
        return True


@contextmanager
def or_again(event: str, **fields: Any) -> Iterator[None]:
    """Have the job's message come again where its end could not be sent to all who wait for it.

    Raises:
        Reject: the block raised `StateUnavailableError`.
    """
    try:
        yield
    except StateUnavailableError as exc:
        log.error(event, reason=str(exc), **fields)  # noqa: TRY400 - no fault of ours
        raise Reject(str(exc), requeue=True) from None


def _notification(call: TurnCall) -> NotificationKey | None:
    return notification_of(call.mark, call.arguments)
