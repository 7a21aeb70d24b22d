"""What is cancelled, where the broker is not Redis and so knows nothing of it.

There a message cannot be taken out of its queue, and Celery's own revocation is remembered by the
workers that live. So it is noted in the Redis of our own state, and each run of a job looks there
before it does anything, before each model call and before each POST.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

from clasper_worker.config.groups import QueueGroup
from clasper_worker.engine.queue.scheduler import SCHEDULED
from clasper_worker.engine.redis.connections import blocking_client
from clasper_worker.engine.redis.scripts import Argument, State, StateScript, redis_client
from clasper_worker.errors import TurnCancelledError

_REMEMBERED_SECONDS = 86_400
_ANSWER_SECONDS = 5.0
_PATIENCE_SECONDS = 120.0  # of a run with a Redis that does not answer; its limits come first


def _note(name: str) -> str:
    return f"clasper:cancelled:{name}"


def _jobs(turn_id: str) -> str:
    return f"clasper:turn-jobs:{turn_id}"


class Cancellations:
    """The notes, as whoever cancels writes them. Blocks; safe for several threads.

    Args:
        client: the Redis of our own state.
    """

    def __init__(self, client: Any) -> None:
        self._redis = client

    @classmethod
    def open(cls, settings: QueueGroup) -> Self | None:
        """They; None where the broker's scheduler knows what is cancelled."""
        if settings.celery_broker_url.startswith(SCHEDULED):
            return None
        return cls(
            blocking_client(
                settings.redis_url,
                settings,
                socket_timeout=_ANSWER_SECONDS,
                socket_connect_timeout=_ANSWER_SECONDS,
            )
        )

    def remember(self, names: Iterable[str]) -> None:
        """Note that these jobs and turns are not to run, for a day.

        Raises:
            RedisError: Redis did not answer.
        """
        with self._redis.pipeline(transaction=True) as pipe:
            for name in names:
                pipe.set(_note(name), "1", ex=_REMEMBERED_SECONDS)
            pipe.execute()

    def recall(self, names: Iterable[str]) -> None:
        """Forget that these are cancelled, since they have ended before.

        Raises:
            RedisError: Redis did not answer.
        """
        keys = [_note(name) for name in names]
        if keys:
            self._redis.delete(*keys)

    def jobs_of(self, turn_id: str) -> frozenset[str]:
        """The jobs that were seen to begin with this turn.

        Raises:
            RedisError: Redis did not answer.
        """
        return frozenset(job.decode() for job in self._redis.smembers(_jobs(turn_id)))

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()


_BEGIN = StateScript("""
-- KEYS: the notes of the job and of its turn, the turn's jobs. ARGV: the job, seconds to live.
redis.call('SADD', KEYS[3], ARGV[1])
redis.call('EXPIRE', KEYS[3], ARGV[2])
return redis.call('EXISTS', KEYS[1], KEYS[2])
""")


class CancelledRuns:
    """The notes, as runs read them. Make it inside the loop that will use it, with `open`."""

    def __init__(self, settings: QueueGroup) -> None:
        self._redis = redis_client(settings.redis_url, settings)
        self._state = State(self._redis, seconds=_PATIENCE_SECONDS)

    @classmethod
    def open(cls, settings: QueueGroup) -> Self | None:
        """They; None where the broker's scheduler knows what is cancelled."""
        return None if settings.celery_broker_url.startswith(SCHEDULED) else cls(settings)

    def of(self, job_id: str, turn_id: str) -> CancellableRun:
        """The run of this job."""
        return CancellableRun(self._state, job_id, turn_id)

    async def close(self) -> None:
        """Close the connections."""
        await self._state.aclose()
        await self._redis.aclose()


class CancellableRun:
    """A run's right to act, for as long as neither its job nor its turn is cancelled: a `Lease`."""

    def __init__(self, state: State, job_id: str, turn_id: str) -> None:
        self._state = state
        self._keys = (_note(job_id), _note(turn_id), _jobs(turn_id))
        self._job_id = job_id

    async def confirm(self) -> None:
        """Make sure that it is not cancelled, and be known as a job of its turn.

        Raises:
            TurnCancelledError: it is.
            StateUnavailableError: that cannot be told, since Redis does not answer.
        """
        arguments: list[Argument] = [self._job_id, _REMEMBERED_SECONDS]
        if await self._state.call(_BEGIN, self._keys, arguments):
            raise TurnCancelledError("It was cancelled; nothing more is posted")
