"""redbeat's scheduler, which goes on where redbeat's own ends: after an outage of Redis, a pause.

Stock redbeat ends its Beat with an exception when Redis does not answer, and when its lock has run
out meanwhile, as it has after an outage, or of a process that was stopped for a while. The one that
waits to take over ends in the same outage. Here the leader waits for Redis, and one that has lost
the lock waits for it again, behind whoever leads now.
"""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, ClassVar

from celery.utils.log import get_logger
from redbeat.schedulers import RedBeatScheduler, acquire_distributed_beat_lock
from redis.exceptions import LockError, RedisError

from clasper_worker.engine.redis.faults import typed_error

_PAUSE_SECONDS = 1.0

logger = get_logger("celery.beat")


class BeatScheduler(RedBeatScheduler):
    """See the module."""

    lock: Any = None
    _is_away = False
    _is_being_made: ClassVar[bool] = False

    def setup_schedule(self) -> None:
        """As redbeat's, once Redis answers.

        Raises:
            SystemExit: Beat is asked to stop meanwhile. Celery's handler of the signal saves the
                scheduler, and so has one made anew, which would wait for Redis inside of it.
        """
        if BeatScheduler._is_being_made:
            raise SystemExit
        BeatScheduler._is_being_made = True
        try:
            while not self._set_up():
                time.sleep(_PAUSE_SECONDS)
        finally:
            BeatScheduler._is_being_made = False

    def _set_up(self) -> bool:
        try:
            super().setup_schedule()
        except RedisError as exc:
            self._say(exc)
            return False
        return True

    def tick(self, *args: Any, **kwargs: Any) -> float:
        """As redbeat's; without Redis or the lock, the seconds until it should be tried again."""
        try:
            if self.lock_key and self.lock is None:
                acquire_distributed_beat_lock(sender=SimpleNamespace(scheduler=self))
            seconds: float = super().tick(*args, **kwargs)
        except LockError:
            self.lock = None
            logger.warning("beat: Lost the lock, and waits for it behind whoever has it")
            return _PAUSE_SECONDS
        except RedisError as exc:
            self._say(exc)
            return _PAUSE_SECONDS
        self._is_away = False
        return seconds

    def close(self) -> None:
        """As redbeat's; a lock that cannot be given back runs out by itself."""
        try:
            super().close()
        except RedisError:
            self.lock = None
            super().close()

    def _say(self, exc: RedisError) -> None:
        if not self._is_away:
            logger.warning("beat: %s; waiting", typed_error(exc))
        self._is_away = True
