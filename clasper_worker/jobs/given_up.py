"""Notifications whose turn became a dead letter without its worker's having a say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog

from clasper_worker.errors import DeadLetterError
from clasper_worker.jobs import metrics
from clasper_worker.jobs.acknowledge import left_alone_for
from clasper_worker.jobs.notification import notification_of
from clasper_worker.jobs.slots import note_key
from clasper_worker.sentinel import blocking_client
from clasper_worker.settings import Settings

_ANSWER_SECONDS = 5.0

log = structlog.get_logger(__name__)


def leave_alone(mark: object, arguments: Mapping[str, Any], settings: Settings) -> None:
    """Keep polls from enqueuing again the notification that a buried turn was to answer.

    It is most often one that kills its workers, and would kill as many again. Blocks. Does nothing
    where the turn answers no notification.

    Args:
        mark: what names the notification, of the turn's message; None where it has none.
        arguments: the turn's.
        settings: for where the notes are.

    Raises:
        RedisError: the note could not be left.
    """
    key = notification_of(mark, arguments)
    if key is None:
        return
    seconds = left_alone_for(is_transient=DeadLetterError.transient)
    client = blocking_client(
        settings.redis_url,
        settings,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
    )
    try:
        client.set(note_key(key.note), "failed", ex=round(seconds))
    finally:
        client.close()
    metrics.count("notification", "failed")
    log.warning("dispatch.turn_failed", error=DeadLetterError.code, again_in=seconds)
