"""Keeping the leases of what this worker process runs.

A thread of its own prolongs them: it must go on while the consumer's thread is busy, in a soft
shutdown or with a blocking command, and while the event loop is. It also looks for the leases of
dead workers. A worker that was frozen, or cut off from Redis, learns here that another has taken
over, and stops its turns; until it knows, `LeaseKeeper.is_fresh` tells it not to post.
"""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable

from clasper_worker.broker.answers import Burial, Exchanged
from clasper_worker.broker.leftovers import Left, Leftovers
from clasper_worker.broker.schedule import Schedule
from clasper_worker.concurrency.vital import vital
from clasper_worker.redis_faults import redis_fault, refusal_of

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"#\d+\Z")
_REFRESHES = 5  # in the time of a lease
_FRESH = 0.8  # of the lease's time: younger than this a lease is surely held


def is_lease_token(delivery_tag: str) -> bool:
    """Whether a delivery tag is a lease's token (and not one of kombu's own)."""
    return isinstance(delivery_tag, str) and _TOKEN.search(delivery_tag) is not None


def lease_time() -> float:
    """Seconds on a clock that goes on while the machine is suspended, as leases do in Redis.

    On Linux `time.monotonic` stands still then.
    """
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


_keepers: list[LeaseKeeper] = []


def keeper_of_process() -> LeaseKeeper | None:
    """The keeper that runs in this process, if one does: a worker's main process has one."""
    return _keepers[-1] if _keepers else None


class LeaseKeeper:
    """Prolongs the leases that this process holds. All methods may be called from any thread.

    Args:
        schedule: a scheduler over a connection of the keeper's own.
        lease_seconds: how long a lease lasts.
        on_lost: called, on the keeper's thread, with tokens that another worker has taken over.
        on_interrupt: called with ids of jobs that a newer turn of their session interrupts,
            whoever runs them.
        on_cancelled: called with ids of jobs that this process runs and that are to be stopped,
            again and again until they have: what others broadcast may not have got here.
        on_buried: called with messages that became dead letters, perhaps more than once; returns
            those whose callers know now.
    """

    def __init__(
        self,
        schedule: Schedule,
        lease_seconds: float,
        *,
        on_lost: Callable[[tuple[str, ...]], object],
        on_interrupt: Callable[[tuple[str, ...]], object],
        on_cancelled: Callable[[tuple[str, ...]], object],
        on_buried: Callable[[tuple[Burial, ...]], Iterable[Burial]],
    ) -> None:
        self._schedule = schedule
        self._period = lease_seconds / _REFRESHES
        self._fresh_for = lease_seconds * _FRESH
        self._on_lost = on_lost
        self._on_interrupt = on_interrupt
        self._on_cancelled = on_cancelled
        self._on_buried = on_buried
        self._held: dict[str, float] = {}  # by when each was surely held, by lease_time()
        self._left = Leftovers()
        self._lock = threading.Lock()
        self._telling = threading.Lock()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, in a thread; at once if that has begun."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="clasper-leases", daemon=True)
            self._thread.start()
            _keepers.append(self)

    def stop(self) -> None:
        """End the thread; the leases run out unless they were given back."""
        self._stopping.set()
        if self in _keepers:
            _keepers.remove(self)
        if self._thread is not None:
            self._thread.join(self._period)
            if not self._thread.is_alive():
                _failure_of(self._give_back_left)  # else those leases lapse

    def hold(self, tokens: Iterable[str], *, since: float) -> None:
        """Keep these; ``since`` is when they were asked for, by `lease_time`."""
        with self._lock:
            self._held.update(dict.fromkeys(tokens, since))

    def drop(self, tokens: Iterable[str]) -> None:
        """Keep these no longer."""
        with self._lock:
            for token in tokens:
                self._held.pop(token, None)

    def held(self) -> tuple[str, ...]:
        """The tokens of all that is kept."""
        with self._lock:
            return tuple(self._held)

    def holds(self, token: str) -> bool:
        """Whether the lease is kept, as far as is known."""
        return token in self._held

    def is_fresh(self, token: str) -> bool:
        """Whether the lease is surely held: it was prolonged recently enough."""
        confirmed = self._held.get(token)
        return confirmed is not None and lease_time() - confirmed < self._fresh_for

    def confirm(self, token: str) -> bool:
        """Ask Redis whether the lease is held, and prolong it. Blocks.

        Raises:
            RedisError: Redis did not answer.
        """
        if token not in self._held:
            return False
        self._refresh([token])
        return token in self._held

    def leave(self, left: Left) -> None:
        """Leave what a channel that was closed, or was refused, has not given back any more.

        The keeper gives it back, or the next channel if that comes first: Celery connects again
        only every half minute after a long outage, when the lease would have lapsed long since.
        """
        self._left.leave(left)

    def take_left(self) -> Left:
        """What was left to be given back."""
        return self._left.take()

    def report(self, found: Exchanged) -> None:
        """Pass on what an exchange found beside deliveries.

        A failure is logged: what it found lies in Redis as well, and the keeper comes upon it.
        """
        try:
            if found.interrupts:
                self._on_interrupt(found.interrupts)
            if found.buried:
                self._tell(found.buried)
        except Exception as exc:  # noqa: BLE001 - of Redis, of kombu, or a fault of ours
            logger.warning("what an exchange found was not passed on: %s", type(exc).__name__)

    def _tell(self, buried: tuple[Burial, ...]) -> None:
        # One thread at a time: a burial that an exchange found comes up in the next pass as well.
        with self._telling:
            told = tuple(one for one in self._on_buried(buried) if one.job_id)
            if told:
                self._schedule.told(told)

    def _run(self) -> None:
        with vital("the lease keeper"):
            self._keep()

    def _keep(self) -> None:
        wait, refused = 0.0, False
        while not self._stopping.wait(wait):
            wait = self._period
            # Each by itself: leases are prolonged, whatever becomes of the others.
            failures = [
                failure
                for do in (self._refresh_all, self._give_back_left, self._reap)
                if (failure := _failure_of(do)) is not None
            ]
            if failures:
                wait = min(1.0, self._period)
                if not refused:
                    logger.warning("leases are not prolonged: %s", failures[0])
            elif refused:
                logger.info("leases are prolonged again")
            refused = bool(failures)

    def _refresh_all(self) -> None:
        self._refresh(list(self.held()))

    def _reap(self) -> None:
        _, buried = self._schedule.reap()
        if buried:
            self._tell(buried)

    def _give_back_left(self) -> None:
        left = self.take_left()
        if not left:
            return
        try:
            found = self._schedule.exchange(
                settled=left.settled, released=left.released, free=0, intake=0
            )
        except BaseException:
            self.leave(left)
            raise
        self.report(found)
        for at, (token, reason) in enumerate(left.buried):
            try:
                buried = self._schedule.bury(token, reason)
            except BaseException:
                self.leave(Left(buried=left.buried[at:]))
                raise
            self.report(Exchanged((), (), buried, more=False))

    def _refresh(self, tokens: list[str]) -> None:
        if not tokens:
            return
        began = lease_time()
        found = self._schedule.renew(tokens)
        with self._lock:
            for token in tokens:
                if token in self._held:
                    self._held[token] = began
            # What was given back meanwhile is not lost, but done.
            lost = tuple(token for token in found.lost if self._held.pop(token, None) is not None)
        if found.cancelled:
            try:
                self._on_cancelled(found.cancelled)
            except Exception:  # it is said again with the next renewal, which must come
                logger.exception("stopping cancelled jobs failed")
        if lost:
            logger.warning("%d leases were lost to another worker", len(lost))
            self._on_lost(lost)


def _failure_of(do: Callable[[], None]) -> str | None:
    """Do it; what went wrong."""
    try:
        do()
    except Exception as exc:
        if redis_fault(exc) is None:
            logger.exception("keeping leases failed")
        return refusal_of(exc)
    return None
