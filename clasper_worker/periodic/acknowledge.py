"""What becomes of a notification when its turn has ended: acknowledged once its reply is posted.

That is done before the turn itself is done with, so that no kill loses it. Where the backend does
not take it at once, a job of its own is enqueued, which is repeated by itself, without the turn.
"""

from __future__ import annotations

import asyncio

import structlog

from clasper_worker.config.names import DELIVERED_TASK, PERIODIC_QUEUE
from clasper_worker.config.settings import Settings
from clasper_worker.engine.redis.connections import blocking_client
from clasper_worker.errors import (
    BackendNotFoundError,
    BackendUnavailableError,
    ClasperError,
    DeadLetterError,
    StateUnavailableError,
)
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.observability import metrics
from clasper_worker.periodic.enqueue import Job, JobQueue
from clasper_worker.periodic.notes import Slots, note_key
from clasper_worker.periodic.notification import NotificationKey, left_alone_for

_AT_ONCE_SECONDS = 5.0  # the turn's session waits for it
_ATTEMPTS = 12
_ATTEMPT_SECONDS = 45.0
_LONGEST_PAUSE_SECONDS = 30.0
# Notes are written anew with each attempt; what none is written of for this long is dispatched
# anew, and its turn, which has ended, then only asks to be acknowledged.
_ANSWERED_SECONDS = 180.0
_DELIVERED_SECONDS = 300.0  # a page that was read before may come late
log = structlog.get_logger(__name__)


class Acknowledgements:
    """Keeps track of notifications whose turns end.

    Args:
        slots: where notes are kept.
        queue: where acknowledgements are enqueued.
    """

    def __init__(self, slots: Slots, queue: JobQueue) -> None:
        self._slots = slots
        self._queue = queue

    async def answered(self, key: NotificationKey, backend: InternalBackend) -> None:
        """Acknowledge a notification whose turn has posted its reply, now or by a job of its own.

        Raises:
            StateUnavailableError: neither the backend nor the broker takes the acknowledgement.
        """
        try:
            await self._deliver(backend, key, _AT_ONCE_SECONDS)
        except ClasperError as exc:
            log.warning("dispatch.acknowledged_later", error=exc.code)
            await self._enqueue(key)
        except asyncio.CancelledError:  # of the turn, whose reply is posted all the same
            await self._enqueue(key)
            raise

    async def failed(self, key: NotificationKey, error: ClasperError) -> None:
        """Note when to try a notification again whose turn failed without a reply."""
        seconds = left_alone_for(is_transient=error.transient)
        metrics.count("notification", "failed")
        log.warning("dispatch.turn_failed", error=error.code, again_in=seconds)
        await self._note(key, "failed", seconds)

    async def acknowledge(self, backend: InternalBackend, key: NotificationKey) -> None:
        """Tell the backend that the notification is delivered.

        Raises:
            BackendError: it did not take it.
        """
        await self._note(key, "answered", _ANSWERED_SECONDS)
        await self._deliver(backend, key, _ATTEMPT_SECONDS)

    async def _deliver(
        self, backend: InternalBackend, key: NotificationKey, seconds: float
    ) -> None:
        try:
            async with asyncio.timeout(seconds):
                await backend.deliver(key.notification_id, key.user_id)
        except TimeoutError:
            raise BackendUnavailableError(
                "The backend did not take an acknowledgement in time"
            ) from None
        except BackendNotFoundError:
            log.info("dispatch.notification_gone", notification_id=key.notification_id)
        await self._note(key, "delivered", _DELIVERED_SECONDS)
        metrics.count("notification", "acknowledged")

    async def _enqueue(self, key: NotificationKey) -> None:
        arguments = {"user_id": key.user_id, "notification_id": key.notification_id}
        await self._queue.put([Job(DELIVERED_TASK, arguments, PERIODIC_QUEUE, keeps_result=False)])
        await self._note(key, "answered", _ANSWERED_SECONDS)

    async def _note(self, key: NotificationKey, text: str, seconds: float) -> None:
        try:
            await self._slots.write([key.note], text, seconds)
        except StateUnavailableError:
            log.warning("dispatch.not_noted")  # then it is dispatched anew, and not run again


def pause_after(attempt: int) -> float | None:
    """Seconds from one attempt, counted from 1, to the next; None where it was the last."""
    return None if attempt >= _ATTEMPTS else min(2.0 ** (attempt - 1), _LONGEST_PAUSE_SECONDS)


_ANSWER_SECONDS = 5.0


def leave_alone(key: NotificationKey, settings: Settings) -> None:
    """Keep polls from enqueuing again a notification whose turn is a dead letter. Blocks.

    It is most often one that kills its workers, and would kill as many again.

    Raises:
        RedisError: the note could not be left.
    """
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
