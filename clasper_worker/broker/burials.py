"""Telling the callers of messages that became dead letters without any task's having a say."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from celery import Celery, states
from celery.app.task import Context
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from clasper_worker.broker.answers import Burial
from clasper_worker.broker.dead_letters import DeadLetters
from clasper_worker.broker.headers import NOTIFICATION_HEADER
from clasper_worker.broker.schedule import Schedule
from clasper_worker.broker.task_message import TaskMessage
from clasper_worker.errors import ClasperError, DeadLetterError
from clasper_worker.jobs.given_up import leave_alone
from clasper_worker.settings import get_settings
from clasper_worker.webhooks.job_end import report_end
from clasper_worker.webhooks.payload import Failure

logger = logging.getLogger(__name__)


class Burials:
    """Stores the failure of buried jobs, and sees to what their turns leave.

    That is the webhook that a turn asks for, and the notification that it was to answer.

    Args:
        schedule: the broker's scheduler.
        app: the worker's Celery app.
    """

    def __init__(self, schedule: Schedule, app: Celery) -> None:
        self._schedule = schedule
        self._letters = DeadLetters(schedule, app)
        self._app = app

    def report(self, buried: Iterable[Burial]) -> list[Burial]:
        """Log them and tell their callers; returns those whose callers know now.

        The others, whatever failed, are to be named again: a caller that is told twice gets the
        same delivery.
        """
        told = []
        for burial in buried:
            logger.error("dead letter %s (%s): %s", burial.letter_id, burial.job_id, burial.reason)
            try:
                if self._tell(burial):
                    told.append(burial)
            except Exception as exc:  # noqa: BLE001 - the others are to be told of
                # Without its text, which may quote the message.
                reason = type(exc).__name__
                logger.error("could not tell of dead letter %s: %s", burial.letter_id, reason)  # noqa: TRY400
        return told

    def _tell(self, burial: Burial) -> bool:
        if burial.job_id and not self._schedule.is_untold(burial):
            return True  # by another worker, or it was replayed since, and its job goes on
        letter = self._letters.get(burial.letter_id)
        message = letter.message if letter is not None else None
        job_id = burial.job_id or (message.job_id if message is not None else "")
        if not job_id:
            return True  # nobody asked for it by any name
        error = DeadLetterError(
            f"The job is a dead letter: {burial.reason}. See `clasper dead-letters`",
            {"job_id": job_id},
        )
        store_failure(self._app, job_id, error, message)
        if message is None or message.task != "clasper.send":
            return True
        mark = message.headers.get(NOTIFICATION_HEADER)
        leave_alone(mark, message.kwargs or {}, get_settings())
        return report_end(self._app, job_id, message.kwargs, Failure.of(error))


def store_failure(app: Any, job_id: str, error: ClasperError, message: TaskMessage | None) -> None:
    """Store that a job failed without having run, and see to what Celery is to do then.

    That is, its errbacks are sent, and the chord or chain that it is part of fails. What of that is
    malformed is logged: its caller knows all the same.

    Raises:
        Exception: the result backend or the broker does not answer; it is to be done again.
    """
    app.backend.store_result(job_id, error, states.FAILURE)
    if message is None:
        return
    about = {"delivery_info": {}, **message.headers, **message.follow_ups, "id": job_id}
    try:
        app.backend.mark_as_failure(job_id, error, request=Context(about), store_result=False)
    except (RedisError, OSError, OperationalError):
        raise
    except Exception as exc:  # noqa: BLE001 - whatever the message says of them
        failed = type(exc).__name__
        logger.warning("what was to follow %s could not be told: %s", job_id, failed)
