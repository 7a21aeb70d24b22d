"""The dead letters: messages that were given up, kept with the reason until somebody decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog
from celery import Celery, states
from celery.app.task import Context
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from clasper_worker.config.names import SEND_TASK
from clasper_worker.engine.queue.kept_apart import is_apart, put_together
from clasper_worker.engine.queue.letter_reasons import Blame, blame_of, code_of
from clasper_worker.engine.queue.message import TaskMessage, read_task_message, without_expiry
from clasper_worker.engine.queue.scheduler import Replay, Schedule, redis_answers
from clasper_worker.errors import (
    ClasperError,
    DeadLetterError,
    LaneFullError,
    LeaseLostError,
    SessionBusyError,
    TurnCancelledError,
    TurnConflictError,
    TurnTimeoutError,
)

logger = logging.getLogger(__name__)
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was given up.

    Attributes:
        letter_id: names the letter in commands.
        job_id: the Celery task's id; empty where the message has none.
        user_id: whose turn it was; empty where it was no turn.
        queue: the queue it came from.
        reason: why it is here; no people's text.
        attempts: how many workers had it to no good end; 0 where none could read it.
        at: when it came here.
        raw: the message as it lay in the queue.
    """

    letter_id: str
    job_id: str
    user_id: str
    queue: str
    reason: str
    attempts: int
    at: datetime
    raw: bytes = field(repr=False)

    @property
    def code(self) -> str:
        """Why it is here, for programs; see `letter_reasons.code_of`."""
        return code_of(self.reason)

    @property
    def by(self) -> Blame:
        """Who has to act."""
        return blame_of(self.reason)

    @property
    def message(self) -> TaskMessage | None:
        """The message, where it can be read."""
        return read_task_message(self.raw)


class DeadLetters:
    """The letters in the broker's Redis.

    Args:
        schedule: the broker's scheduler.
        app: a Celery app on the same broker and result backend.
    """

    def __init__(self, schedule: Schedule, app: Celery) -> None:
        self._schedule = schedule
        self._redis = schedule.client
        self._app = app

    def ids(self) -> tuple[str, ...]:
        """The ids of all letters, newest first.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        with redis_answers():
            return tuple(letter.decode() for letter in self._redis.zrevrange("clasper:dead", 0, -1))

    def newest(self, limit: int) -> tuple[DeadLetter, ...]:
        """The newest letters, newest first.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        return self._read(self.ids()[:limit])

    def find(self, wanted: Callable[[DeadLetter], bool]) -> Iterator[DeadLetter]:
        """Those that are wanted, newest first; read as they are asked for.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        ids = self.ids()
        for start in range(0, len(ids), _AT_ONCE):
            yield from filter(wanted, self._read(ids[start : start + _AT_ONCE]))

    def _read(self, wanted: Sequence[str]) -> tuple[DeadLetter, ...]:
        found: list[DeadLetter] = []
        for start in range(0, len(wanted), _AT_ONCE):
            part = wanted[start : start + _AT_ONCE]
            with redis_answers(), self._redis.pipeline(transaction=False) as pipe:
                for letter_id in part:
                    pipe.hgetall(f"clasper:dead:{letter_id}")
                hashes = pipe.execute()
            found += [
                _letter(letter_id, fields)
                for letter_id, fields in zip(part, hashes, strict=True)
                if fields  # dropped meanwhile
            ]
        return tuple(found)

    def get(self, letter_id: str) -> DeadLetter | None:
        """One letter.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        with redis_answers():
            self._schedule.keep_apart([letter_id])  # where no worker has yet
            fields = self._redis.hgetall(f"clasper:dead:{letter_id}")
        return _letter(letter_id, fields) if fields else None

    def replay(self, letter_id: str, *, without_webhook: bool = False) -> Replay:
        """Queue a letter's message again, in one step with dropping the letter.

        The turn goes on from what it had reached, and its new outcome replaces the failure. Whoever
        replays it wants it run: a moment at which it was to expire holds no longer.

        Args:
            letter_id: the letter's.
            without_webhook: whether a turn's end is to be reported to nobody; else a letter whose
                webhook is kept no longer is left, as ``webhook_gone``.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        letter = self.get(letter_id)
        if letter is None:
            return "unknown"
        raw = self.whole(letter)
        if without_webhook and letter.message and letter.message.task == SEND_TASK:
            raw = put_together(letter.raw, None)
        if raw is None:
            return "webhook_gone"
        with redis_answers():
            if letter.job_id and letter.queue:
                # No longer failed, before it can end anew; should we die here, the letter is left.
                self._app.backend.store_result(letter.job_id, None, states.RECEIVED)
            # As a whole: what lies there may be taken apart meanwhile.
            text = raw.decode("utf-8", "replace") if letter.message else ""
            return self._schedule.replay(letter_id, without_expiry(raw) or text)

    def drop(self, letter_id: str) -> bool:
        """Forget a letter; False if there is none of that id.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        with redis_answers(), self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem("clasper:dead", letter_id)
            pipe.delete(f"clasper:dead:{letter_id}", f"clasper:apart:{letter_id}")
            pipe.lrem("clasper:together", 1, letter_id)
            return any(pipe.execute())

    def whole(self, letter: DeadLetter) -> bytes | None:
        """The letter's message with its webhook; None where that is kept no longer.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if not is_apart(letter.raw):
            return letter.raw
        with redis_answers():
            webhook = self._redis.get(f"clasper:apart:{letter.letter_id}")
        return None if webhook is None else put_together(letter.raw, webhook.decode())


def dead_letter_error(job_id: str, reason: str) -> DeadLetterError:
    """The failure of a job whose message became a dead letter."""
    return DeadLetterError(
        f"The job is a dead letter: {reason}. See `clasper dead-letters`", {"job_id": job_id}
    )


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


def _letter(letter_id: str, fields: Mapping[bytes, bytes]) -> DeadLetter:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode("utf-8", "replace")

    return DeadLetter(
        letter_id=letter_id,
        job_id=text(b"job"),
        user_id=text(b"user"),
        queue=text(b"queue"),
        reason=text(b"reason"),
        attempts=int(text(b"attempts") or 0),
        at=datetime.fromtimestamp(int(text(b"at") or 0) / 1000, UTC),
        raw=fields.get(b"raw", b""),
    )


# These are how such a turn is meant to end: running it again would change nothing.
OUTCOMES = (
    SessionBusyError,
    LaneFullError,
    TurnConflictError,
    TurnTimeoutError,
    LeaseLostError,
    TurnCancelledError,
)
log = structlog.get_logger(__name__)


class Doom:
    """Marks the deliveries of turns that fail for good.

    Args:
        schedule: the broker's scheduler; None where the broker is not Redis.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self._schedule = schedule

    @asynccontextmanager
    async def of_failures(self, lease: str | None) -> AsyncIterator[None]:
        """Doom the delivery if an error of ours leaves the block that is not one of `OUTCOMES`.

        A failure to do so is logged, and does not hide the error.

        Args:
            lease: the delivery's token; None where it has none.
        """
        try:
            yield
        except OUTCOMES:
            raise
        except ClasperError as exc:
            if lease is not None and self._schedule is not None:
                await self._doom(self._schedule, lease, f"{exc.code}: {exc}")
            raise

    async def close(self) -> None:
        """Close the connections."""
        if self._schedule is not None:
            self._schedule.close()

    async def _doom(self, schedule: Schedule, lease: str, reason: str) -> None:
        try:
            is_held = await asyncio.to_thread(schedule.doom, lease, reason)
        except Exception as exc:  # noqa: BLE001 - the turn's own error says more
            log.warning("turn.not_a_dead_letter", error=type(exc).__name__)
            return
        if is_held:
            log.warning("turn.dead_letter", letter_id=lease.rpartition("#")[0])
