"""A watchdog over the worker's deliveries: each belongs to a job, or is given back.

A delivery that no job holds any more, whatever became of its acknowledgement, would be kept leased
for as long as the worker lives: its session would hang, and `clasper cancel` would reach nobody.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from itertools import chain
from typing import Any

from celery import bootsteps
from celery.worker import state as worker_state
from celery.worker.consumer.connection import Connection

from clasper_worker.engine.pool.job import Job
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper
from clasper_worker.engine.queue.leftovers import Left
from clasper_worker.engine.queue.transport import Transport

logger = logging.getLogger(__name__)

_PERIOD_SECONDS = 1.5
_SHOWN = 10


class Orphans:
    """Tells deliveries that no job holds from those of which the job is just ending."""

    def __init__(self) -> None:
        self._suspected: frozenset[str] = frozenset()

    def find(self, held: Collection[str], owned: Collection[str]) -> frozenset[str]:
        """Those that no job has held at this look and at the one before.

        Args:
            held: tokens of deliveries that this process keeps leased.
            owned: tokens of those that a job of it holds.
        """
        now = frozenset(held) - frozenset(owned)
        found = now & self._suspected
        self._suspected = now - found
        return found


class ReleaseOrphans(bootsteps.StartStopStep):
    """Looks for orphans on the consumer's thread, where no report can be half-way, and frees them.

    Another worker, or this one, runs such a turn again from its journal: what it had posted it does
    not post again, and its caller gets the result.
    """

    requires = (Connection,)

    def __init__(self, consumer: Any, **kwargs: Any) -> None:
        super().__init__(consumer, **kwargs)
        self._timer: Any = None
        self._orphans = Orphans()

    def start(self, consumer: Any) -> None:
        """Begin, anew after each lost connection."""
        if isinstance(consumer.connection.transport, Transport):
            self._timer = consumer.timer.call_repeatedly(_PERIOD_SECONDS, self._look, (consumer,))

    def stop(self, consumer: Any) -> None:
        """Stop looking."""
        del consumer
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self, consumer: Any) -> None:
        keeper: LeaseKeeper | None = getattr(consumer, "lease_keeper", None)
        if keeper is None:
            return
        owned = {request.message.delivery_tag for request in _requests(consumer)}
        found = sorted(self._orphans.find(keeper.held(), owned))
        if not found:
            return
        shown = ", ".join(token.rpartition("#")[0] for token in found[:_SHOWN])
        logger.error("releasing %d deliveries that no job here holds: %s", len(found), shown)
        if consumer.connection is not None:
            for channel in consumer.connection.transport.channels:
                channel.qos.forget(found)
        keeper.drop(found)
        keeper.leave(Left(released=found))


def _requests(consumer: Any) -> Iterator[Any]:
    """Requests that run, or that wait: for the pool, for their time, or for their rate limit."""
    limited = (
        request
        for bucket in consumer.task_buckets.values()
        if bucket is not None
        for request, _ in bucket.contents
    )
    waiting = worker_state.scheduled_requests
    handed_over = (
        request
        for request in {*worker_state.reserved_requests, *worker_state.active_requests}
        if _is_held(request, consumer.pool)
    )
    return chain(limited, list(waiting), handed_over)


def _is_held(request: Any, pool: Any) -> bool:
    """Whether the pool, where it is ours, still has the request's job."""
    reference = request._apply_result  # noqa: SLF001 - Celery has no other way to the job
    if reference is None or not hasattr(pool, "holds"):
        return True  # it is being handed over; or it is another pool's matter
    job = reference()
    return job is not None and (not isinstance(job, Job) or pool.holds(job))
