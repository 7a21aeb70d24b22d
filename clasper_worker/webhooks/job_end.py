"""The webhook of a job whose end is not its task's own: cancelled, expired, stopped or buried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from celery import Celery

from clasper_worker.settings import get_settings
from clasper_worker.turn.request import RequestLimits
from clasper_worker.webhooks.outbox import publish
from clasper_worker.webhooks.payload import Failure, ended_turn, failed

log = structlog.get_logger(__name__)


def end_of_cancelled(reason: str) -> Failure:
    """A job that was cancelled, whatever becomes of others that ask for its turn.

    Args:
        reason: Celery's word, ``revoked`` or ``terminated``.
    """
    return Failure(
        "The turn was cancelled",
        "cancelled",
        {"reason": reason},
        status="cancelled",
        of_the_job=True,
    )


def end_of_expired() -> Failure:
    """A job that was not run in the time that its sender gave it."""
    return Failure(
        "The turn's message expired before it was run",
        "expired",
        {"reason": "expired"},
        status="cancelled",
        of_the_job=True,
    )


def report_end(app: Celery, job_id: str, arguments: Any, failure: Failure) -> bool:
    """Enqueue the webhook that a turn's arguments ask for, from a thread that may block.

    What keeps it from being enqueued is logged, and no error of the caller's.

    Returns:
        False if there was one to enqueue, and the broker did not take it.
    """
    if not isinstance(arguments, Mapping) or arguments.get("webhook") is None:
        return True
    try:
        turn = ended_turn(arguments, job_id, RequestLimits.from_settings(get_settings()))
        if turn is not None:
            publish(app, failed(turn, failure))
    except Exception as exc:  # noqa: BLE001 - the turn's end must not fail of its report
        log.error("webhook.not_enqueued", job_id=job_id, error=type(exc).__name__)  # noqa: TRY400 - its text may be private
        return False
    return True
