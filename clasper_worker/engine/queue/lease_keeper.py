"""Keeping the leases of what this worker process runs.

A thread of its own prolongs them: it must go on while the consumer's thread is busy, in a soft
shutdown or with a blocking command, and while the event loop is. It also looks for the leases of
dead workers, and talks to the broker's Redis alone: whatever else follows from what it finds is
done by other threads. A worker that was frozen, or cut off from Redis, learns here that another has
taken over, and stops its turns; until it knows, `LeaseKeeper.is_fresh` tells it not to post.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from clasper_worker.engine.pool.vital import vital
from clasper_worker.engine.queue.leftovers import Left, Leftovers
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.queue.scheduler_types import Burial, Exchanged, QueuedTurn
from clasper_worker.engine.redis.faults import redis_fault, refusal_of

logger = logging.getLogger(__name__)

_TOKEN = re.compile(r"#\d+\Z")
_REFRESHES = 5  # in the time of a lease
_FRESH = 0.8  # of the lease's time: younger than this a lease is surely held
_AT_ONCE = 500  # tokens in one call: Redis serves nobody else meanwhile


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

# A child has no thread of its parent's: it must not take the parent's keeper for one of its own,
# which would tell it that all that it runs is lost.
os.register_at_fork(after_in_child=_keepers.clear)


def keeper_of_process() -> LeaseKeeper | None:
    """The keeper that runs in this process, if one does: a worker's main process has one."""
    return _keepers[-1] if _keepers else None


class Reporter(Protocol):
    """Takes what is to be reported, at once, and reports it on a thread of its own."""

    def dead_letters(self, buried: Iterable[Burial]) -> None:
        """Messages that became dead letters, perhaps the same ones again."""
        ...

    def interrupts(self, jobs: Sequence[str]) -> None:
        """Ids of jobs that a newer turn of their session interrupts, whoever runs them."""
        ...


class LeaseKeeper:
    """Prolongs the leases that this process holds. All methods may be called from any thread.

    What it is given to call must not block: the leases of living workers would run out.

    Args:
        schedule: a scheduler over a connection of the keeper's own.
        lease_seconds: how long a lease lasts.
        on_lost: called, on the keeper's thread, with tokens that another worker has taken over.
        on_cancelled: called with ids of jobs that this process runs and that are to be stopped,
            again and again until they have: what others broadcast may not have got here.
        reporter: is told of dead letters and interrupts.
        on_queued: called with turns that were taken in and wait for their session.
    """

    def __init__(
        self,
        schedule: Schedule,
        lease_seconds: float,
        *,
        on_lost: Callable[[tuple[str, ...]], object],
        on_cancelled: Callable[[tuple[str, ...]], object],
        reporter: Reporter,
        on_queued: Callable[[Sequence[QueuedTurn]], object] = lambda _: None,
    ) -> None:
        self._schedule = schedule
        self._period = lease_seconds / _REFRESHES
        self._fresh_for = lease_seconds * _FRESH
        self._on_lost = on_lost
        self._on_cancelled = on_cancelled
        self._reporter = reporter
        self._on_queued = on_queued
        self._held: dict[str, float] = {}  # by when each was surely held, by lease_time()
        self._left = Leftovers()
        # Re-entrant: a shutdown's signal handler may come here while it interrupts its own thread.
        self._lock = threading.RLock()
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
        """Have reported what an exchange found beside deliveries."""
        if found.queued:
            self._on_queued(found.queued)
        if found.interrupts:
            self._reporter.interrupts(found.interrupts)
        if found.buried:
            self._reporter.dead_letters(found.buried)

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
        with self._lock:
            held = dict(self._held)
        self._refresh(sorted(held, key=held.__getitem__))  # the oldest first

    def _reap(self) -> None:
        _, buried = self._schedule.reap()
        if buried:
            self._reporter.dead_letters(buried)

    def _give_back_left(self) -> None:
        left = self.take_left()
        plain = {"settled": left.settled, "released": left.released, "lost": left.lost}
        for start in range(0, max(map(len, plain.values())), _AT_ONCE):
            chunk = {kind: tokens[start : start + _AT_ONCE] for kind, tokens in plain.items()}
            try:
                found = self._schedule.exchange(**chunk, free=0, intake=0)
            except BaseException:
                rest = {kind: tokens[start:] for kind, tokens in plain.items()}
                self.leave(Left(**rest, buried=left.buried))
                raise
            self.report(found)
        for at, (token, reason) in enumerate(left.buried):
            try:
                buried = self._schedule.bury(token, reason)
            except BaseException:
                self.leave(Left(buried=left.buried[at:]))
                raise
            self.report(Exchanged((), (), buried, more=False))

    def _refresh(self, tokens: Sequence[str]) -> None:
        for chunk in _chunks(tokens):
            self._refresh_chunk(chunk)

    def _refresh_chunk(self, tokens: Sequence[str]) -> None:
        began = lease_time()
        found = self._schedule.renew(tokens)
        with self._lock:
            for token in tokens:
                if token in self._held:
                    self._held[token] = max(began, self._held[token])
            # What was given back meanwhile is not lost, but done.
            lost = tuple(token for token in found.lost if self._held.pop(token, None) is not None)
        if lost:
            logger.warning("%d leases were lost to another worker", len(lost))
        for names, stop in ((found.cancelled, self._on_cancelled), (lost, self._on_lost)):
            if names:
                try:
                    stop(names)
                except Exception:  # the other leases are to be prolonged all the same
                    logger.exception("stopping what another worker has, or is cancelled, failed")


def _chunks(tokens: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(tokens), _AT_ONCE):
        yield tokens[start : start + _AT_ONCE]


def _failure_of(do: Callable[[], None]) -> str | None:
    """Do it; what went wrong."""
    try:
        do()
    except Exception as exc:
        if redis_fault(exc) is None:
            logger.exception("keeping leases failed")
        return refusal_of(exc)
    return None
