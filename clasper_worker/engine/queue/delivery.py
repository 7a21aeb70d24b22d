"""What the transport tells a task of its message's delivery, and the fence that follows from it."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from celery.app.task import Context
from redis.exceptions import RedisError

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper, keeper_of_process
from clasper_worker.engine.queue.message import ROUTE_HEADER, read_task_message
from clasper_worker.engine.queue.scheduler import Schedule, open_schedule, redis_answers
from clasper_worker.engine.redis.faults import RedisFault, redis_fault, typed_error
from clasper_worker.errors import (
    InvalidRequestError,
    LaneFullError,
    LeaseLostError,
    SessionBusyError,
)
from clasper_worker.observability.trace_context import TRACEPARENT, TraceContext

LEASE_HEADER = "clasper_lease"
VERDICT_HEADER = "clasper_verdict"
COLLECTED_HEADER = "clasper_collected"
WAITED_HEADER = "clasper_waited"
BEHIND_HEADER = "clasper_behind"
ROLLS_BACK_HEADER = "clasper_rolls_back"
_OF_LEASES = (WAITED_HEADER, BEHIND_HEADER, ROLLS_BACK_HEADER)
_PATIENCE_SECONDS = 120.0  # with a Redis that does not answer; the turn's own limits come first
_PAUSE_SECONDS = 0.5


class Lease(Protocol):
    """A run's right to act for its turn, for as long as it is the one that has the turn."""

    async def confirm(self) -> None:
        """Make sure that the turn is still this run's; called right before each POST.

        Raises:
            LeaseLostError: another run has taken the turn over.
        """
        ...


@dataclass(frozen=True, slots=True)
class TurnDelivery:
    """One delivery of a task's message.

    Attributes:
        token: the lease's; None where the message did not come through the scheduler.
        verdict: why the turn must not run, else empty.
        collected: the requests that are to be run with it, each ``{"job_id", "request"}``, and
            ``notification`` where it has a mark.
        route: what its header says of whose turn it is; None where it says nothing.
        mark: which notification it answers, as `periodic.notification` has it; None: it has none.
        waited: seconds since the scheduler took the message in; None without the scheduler.
        behind: of them, those behind others of its session; None likewise.
        trace: the caller's trace; None where the message names none.
        rolls_back: the job and the turn that it had cancelled; None where there is none.
    """

    token: str | None = None
    verdict: str = ""
    collected: list[Mapping[str, Any]] = field(default_factory=list, repr=False)
    route: Any = field(default=None, repr=False)
    mark: Any = None
    waited: float | None = None
    behind: float | None = None
    trace: TraceContext | None = None
    rolls_back: Sequence[str] | None = None

    @classmethod
    def of(cls, request: Context) -> TurnDelivery:
        """Read it from the headers that the transport set."""
        is_leased = bool(request.get(LEASE_HEADER))  # else they are whatever a sender wrote
        found = (request.get(name) if is_leased else None for name in _OF_LEASES)
        waited, behind, rolls_back = found
        return cls(
            request.get(LEASE_HEADER),
            request.get(VERDICT_HEADER) or "",
            request.get(COLLECTED_HEADER) or [],
            request.get(ROUTE_HEADER),
            request.get(NOTIFICATION_HEADER),
            waited,
            behind,
            TraceContext.read(request.get(TRACEPARENT)),
            rolls_back,
        )

    @property
    def number(self) -> int:
        """Greater than that of every earlier delivery of the message; 0 without the scheduler."""
        return int(self.token.rpartition("#")[2]) if self.token is not None else 0

    def check_verdict(self) -> None:
        """Raise if the scheduler decided that the turn must not run.

        Raises:
            InvalidRequestError: its header names another session than its body.
            SessionBusyError: its session is busy, and the policy is to be rejected then.
            LaneFullError: too many turns of its session wait.
        """
        if self.verdict == "misrouted":
            raise InvalidRequestError(
                "The message's header clasper_route says something else than its arguments: send"
                " the same, or no such header"
            )
        if self.verdict == "busy":
            raise SessionBusyError(
                "Another turn of this session runs or waits, and the busy policy is reject:"
                " send it again later, or with metadata.busy enqueue"
            )
        if self.verdict == "lane_full":
            raise LaneFullError(
                "Too many turns of this session wait (CLASPER_LANE_DEPTH): send it again later"
            )

    def lease(self) -> Lease:
        """The fence by which the turn makes sure that it is still this worker's."""
        return NoLease() if self.token is None else HeldLease(self.token)


class HeldLease:
    """A lease on a delivery, confirmed without asking Redis while it was prolonged recently.

    Args:
        token: the delivery's.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    async def confirm(self) -> None:
        """Make sure that the delivery is still this worker's; see `Lease.confirm`.

        Raises:
            LeaseLostError: another worker has taken it over.
            StateUnavailableError: that cannot be told, since Redis does not answer.
        """
        keeper = keeper_of_process()
        if keeper is not None and keeper.is_fresh(self._token):
            return
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                held = await asyncio.to_thread(self._ask, keeper)
                break
            except (RedisError, OSError) as exc:
                kind = redis_fault(exc)
                if kind is RedisFault.FAULT or time.monotonic() > deadline:
                    raise typed_error(exc, "CELERY_BROKER_URL") from exc
            await asyncio.sleep(_PAUSE_SECONDS)
        if not held:
            raise LeaseLostError("Another worker has taken the turn over; nothing more is posted")

    def _ask(self, keeper: LeaseKeeper | None) -> bool:
        if keeper is not None:
            return keeper.confirm(self._token)
        schedule = _child_schedule.get()  # in a child process of the prefork pool
        return schedule is None or not schedule.refresh([self._token])


class _ChildSchedule:
    """The scheduler as a process without a keeper reaches it; made when it is first needed.

    A forked child makes its own: its parent's connections, and a lock that its parent held, are
    not for it.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[Schedule | None] | None = None

    def get(self) -> Schedule | None:
        with self._lock:
            if self._made is None:
                self._made = (open_schedule(get_settings()),)
            return self._made[0]


_child_schedule = _ChildSchedule()
os.register_at_fork(after_in_child=_child_schedule.forget)


def collected_requests(raws: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the collected messages ask for: each ``{"job_id", "request", …}``, in order of arrival.

    Where one answers a notification, that is named under ``notification``.
    """
    return [_request(raw) for raw in raws]


class Groups:
    """Takes groups of collected turns apart.

    Args:
        schedule: the broker's scheduler; None where the broker is not Redis.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self._schedule = schedule

    async def part(self, lease: str | None, job_ids: Sequence[str]) -> None:
        """Have these jobs, collected by the delivery of this token, wait behind it again.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if self._schedule is None or lease is None:
            return
        with redis_answers():
            await asyncio.to_thread(self._schedule.part, lease, job_ids)

    async def close(self) -> None:
        """Close the connections."""
        if self._schedule is not None:
            self._schedule.close()


def _request(raw: bytes) -> dict[str, Any]:
    message = read_task_message(raw)
    if message is None or message.kwargs is None:
        raise ValueError("a collected message cannot be read")
    asked: dict[str, Any] = {"job_id": message.job_id, "request": message.kwargs}
    if NOTIFICATION_HEADER in message.headers:
        asked["notification"] = message.headers[NOTIFICATION_HEADER]
    return asked


class NoLease:
    """For turns that nobody else can take over: it is always confirmed."""

    async def confirm(self) -> None:
        """See `Lease.confirm`."""
