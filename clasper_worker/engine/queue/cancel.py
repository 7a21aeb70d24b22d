"""Cancelling a turn, or one job, wherever it is: queued, waiting in its session's lane, or running.

What has ended already is left as it is, and its state reported.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

from celery import Celery, states

from clasper_worker.config.groups import QueueGroup
from clasper_worker.config.names import QUEUES
from clasper_worker.engine.queue.cancellations import Cancellations
from clasper_worker.engine.queue.message import read_task_message
from clasper_worker.engine.queue.scheduler import Schedule, Withdrawal, open_schedule, redis_answers

Found = Literal["waiting", "running", "ended", "unknown"]
_POLL_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class CancelledJob:
    """What became of one job.

    Attributes:
        job_id: the Celery task's id.
        found: what it was when it was to be cancelled. ``unknown``: no such job is queued, waiting,
            running or remembered; should one come within a day, it will be cancelled.
        state: Celery's state now, such as REVOKED, or SUCCESS for work that was finished.
    """

    job_id: str
    found: Found
    state: str

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it will happen any more."""
        return self.state in states.READY_STATES


class Canceller:
    """Cancels turns and jobs. Blocks; safe for several threads.

    Args:
        app: a Celery app on the workers' broker and result backend.
        schedule: the broker's scheduler; None where the broker is not Redis. There the workers
            are asked, which know of the jobs that they hold, and `cancellations` holds for those
            that are still to come.
        queues: names of queues that jobs may lie in.
        cancellations: what is cancelled, where the broker is not Redis.
    """

    def __init__(
        self,
        app: Celery,
        schedule: Schedule | None,
        queues: Collection[str],
        cancellations: Cancellations | None = None,
    ) -> None:
        self._app = app
        self._schedule = schedule
        self._queues = queues
        self._cancellations = cancellations

    @classmethod
    def from_settings(cls, app: Celery, settings: QueueGroup) -> Self:
        """For the broker that the settings name, whatever it is."""
        return cls(app, open_schedule(settings), QUEUES, Cancellations.open(settings))

    def cancel_turn(
        self, turn_id: str, *, wait: float, thoroughly: bool = False
    ) -> tuple[CancelledJob, ...]:
        """Stop a turn and every job that asks for it.

        Args:
            turn_id: the turn's id.
            wait: seconds to wait at most for what runs to end.
            thoroughly: whether to look for it among all that waits, however long that takes; for
                what is known to have been queued. Else one that was sent past us, and waits behind
                many, may be ``unknown``, and is cancelled when a worker comes to it.

        Returns:
            Its jobs; the only one is ``unknown`` where none is known.

        Raises:
            StateUnavailableError: the broker or the result backend does not answer.
        """
        with redis_answers():
            jobs = self._jobs_of(turn_id)
        ids = [turn_id, *sorted(jobs - {turn_id})]
        ends = self._cancel(ids, wait, thoroughly=thoroughly)
        # A turn's id need not be a job's.
        told = tuple(end for end in ends if end.found != "unknown") or ends
        if any(end.state in {states.SUCCESS, states.FAILURE} for end in told):
            with redis_answers():
                self._recall([turn_id])  # whoever asks for the turn again gets its result
        return told

    def cancel_job(self, job_id: str, *, wait: float, thoroughly: bool = False) -> CancelledJob:
        """Cancel one job; other jobs of its turn go on. See `cancel_turn`."""
        return self._cancel([job_id], wait, are_jobs=True, thoroughly=thoroughly)[0]

    def announce_unseen(self, job_id: str) -> None:
        """Say of a job that was queued once, and is ``unknown`` now, that it is revoked.

        Raises:
            StateUnavailableError: the broker or the result backend does not answer.
        """
        with redis_answers():
            store_revoked(self._app, [job_id])
            with self._app.events.default_dispatcher() as events:
                events.send(
                    "task-revoked", uuid=job_id, terminated=False, signum=None, expired=False
                )

    def close(self) -> None:
        """Close the connections to the broker's scheduler."""
        if self._schedule is not None:
            self._schedule.close()
        if self._cancellations is not None:
            self._cancellations.close()

    def _jobs_of(self, turn_id: str) -> frozenset[str]:
        known = self._schedule or self._cancellations
        return known.jobs_of(turn_id) if known is not None else frozenset()

    def _recall(self, names: Collection[str]) -> None:
        known = self._schedule or self._cancellations
        if known is not None:
            known.recall(names)

    def _cancel(self, ids: list[str], wait: float, **search: bool) -> tuple[CancelledJob, ...]:
        with redis_answers():
            found = self._find(ids, search)
            waiting = [job for job, word in found.items() if word == "waiting"]
            # Another broker cannot say what is queued.
            held = {"running"} if self._schedule else {"running", "unknown"}
            running = [job for job, word in found.items() if word in held]
            store_revoked(self._app, waiting)  # the worker that gets it announces it
            if running:
                self._app.control.revoke(running, terminate=True)
            deadline = time.monotonic() + wait
            ends = {
                job: self._wait(job, deadline if word in held else 0.0)
                for job, word in found.items()
            }
        return tuple(CancelledJob(job, found[job], state) for job, state in ends.items())

    def _find(self, ids: list[str], search: Mapping[str, bool]) -> dict[str, Found]:
        """What each job was; ``search`` as `take_from_queues` takes it."""
        schedule = self._schedule
        if schedule is None:
            if self._cancellations is not None:
                self._cancellations.remember(ids)
            states_found = {job: self._by_state(job) for job in ids}
            self._recall([job for job, word in states_found.items() if word == "ended"])
            return states_found
        words = schedule.withdraw_all(ids, remember=True)
        unknown = [job for job, word in words.items() if word == "unknown"]
        ended = {job for job in unknown if self._has_ended(job)}
        if ended:
            schedule.recall(ended)
        # Cancelled and told of before, though no worker has got its message yet.
        ended |= {job for job, word in words.items() if word == "leaving" and self._has_ended(job)}
        missing = [job for job in unknown if job not in ended]
        if missing:
            words |= take_from_queues(schedule, self._queues, missing, **search)
            # Taken in while the queues were looked through.
            missing = [job for job in missing if words[job] == "unknown"]
            words |= schedule.withdraw_all(missing, remember=True)
        found: dict[str, Found] = {job: _FOUND[word] for job, word in words.items()}
        return found | dict.fromkeys(ended, "ended")

    def _by_state(self, job_id: str) -> Found:
        state = self._state(job_id)
        if state in states.READY_STATES:
            return "ended"
        return "unknown" if state == states.PENDING else "running"

    def _wait(self, job_id: str, deadline: float) -> str:
        while True:
            state = self._state(job_id)
            if state in states.READY_STATES or time.monotonic() >= deadline:
                return state
            time.sleep(_POLL_SECONDS)

    def _has_ended(self, job_id: str) -> bool:
        return self._state(job_id) in states.READY_STATES

    def _state(self, job_id: str) -> str:
        return str(self._app.backend.get_task_meta(job_id, cache=False)["status"])


_FOUND: dict[Withdrawal, Found] = {
    "withdrawn": "waiting",
    "leaving": "waiting",
    "running": "running",
    "unknown": "unknown",
}


def store_revoked(app: Celery, jobs: Iterable[str]) -> None:
    """Store of jobs that they are revoked."""
    for job in jobs:
        app.backend.mark_as_revoked(job, reason="revoked", store_result=True)


# As kombu names a queue's lists, one for each of its priorities.
_SEPARATOR = "\x06\x16"
_PRIORITIES = (3, 6, 9)
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]+")
_AT_ONCE = 200
_AT_A_GLANCE = 20
_LOOKED_AT = 1_000_000  # messages of a list at most
_GLANCE_SECONDS = 0.02


def take_from_queues(
    schedule: Schedule,
    queues: Collection[str],
    names: Collection[str],
    *,
    are_jobs: bool = False,
    thoroughly: bool = True,
) -> dict[str, Withdrawal]:
    """Take the messages of these jobs, or of these turns' jobs, out of the queues.

    They are taken in, and withdrawn as those that a worker has taken in: see
    `Schedule.withdraw_all`, which is to have remembered the names.

    It looks from the newest message on, so that what is sent or taken in meanwhile makes it look
    at some messages twice, but miss none that was there before.

    Args:
        schedule: the broker's scheduler.
        queues: the queues' names, beside those that workers have been seen to consume.
        names: ids of jobs and turns.
        are_jobs: whether all of them are jobs' ids, which lie readable in the messages.
        thoroughly: whether to look at all that waits. Else it looks at the newest messages alone,
            for as long as nobody notices: what it misses is remembered, and does not run.

    Returns:
        What became of the jobs whose messages were taken, by their ids.
    """
    client = schedule.client
    wanted = frozenset(names)
    # What needs no escape in JSON is found without reading every message.
    is_plain = are_jobs and all(_PLAIN.fullmatch(name) for name in names)
    written = [name.encode() for name in names] if is_plain else [b""]
    deadline = None if thoroughly else time.monotonic() + _GLANCE_SECONDS
    known = {queue.decode() for queue in client.smembers("clasper:queues")}
    found = [
        (queue, key, raw, message)
        for queue, key in _lists(known | set(queues))
        for raw in _messages(client, key, deadline)
        if any(text in raw for text in written)
        and (message := read_task_message(raw))
        and wanted & {message.job_id, message.turn_id}
    ]
    # Only now, since taking one moves those behind it.
    taken = [
        message.job_id for queue, key, raw, message in found if schedule.admit(queue, key, raw)
    ]
    # Mostly they are delivered as cancelled by now.
    words = schedule.withdraw_all(taken, remember=True) if taken else {}
    return {job: "withdrawn" if word == "unknown" else word for job, word in words.items()}


def _lists(queues: Collection[str]) -> Iterator[tuple[str, str]]:
    for queue in sorted(queues):
        yield queue, queue
        for priority in _PRIORITIES:
            yield queue, f"{queue}{_SEPARATOR}{priority}"


def _messages(client: Any, key: str, deadline: float | None) -> Iterator[bytes]:
    at_once = _AT_ONCE if deadline is None else _AT_A_GLANCE
    for start in range(0, _LOOKED_AT, at_once):
        if start and deadline is not None and time.monotonic() > deadline:
            return
        found = client.lrange(key, start, start + at_once - 1)
        yield from found
        if len(found) < at_once:
            return
