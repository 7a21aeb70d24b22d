"""Telling the callers of messages that became dead letters without any task's having a say."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from celery import Celery

from clasper_worker.completion.completion import Completion
from clasper_worker.config.names import SEND_TASK
from clasper_worker.engine.queue.dead_letters import DeadLetters, dead_letter_error, store_failure
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.engine.queue.message import read_task_message
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.scheduler_types import Burial
from clasper_worker.turn.call import TurnCall

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
        raw = self._letters.whole(letter) if letter is not None else None
        message = read_task_message(raw) if raw is not None else None
        if message is None and letter is not None:
            message = letter.message
        job_id = burial.job_id or (message.job_id if message is not None else "")
        if not job_id:
            return True  # nobody asked for it by any name
        error = dead_letter_error(job_id, burial.reason)
        store_failure(self._app, job_id, error, message)
        if message is None or message.task != SEND_TASK:
            return True
        call = TurnCall(job_id, message.kwargs, message.headers.get(NOTIFICATION_HEADER))
        return Completion(self._app).dead_lettered(call, error)
