"""What the scheduler's script answers, as data."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

Verdict = Literal["", "busy", "lane_full", "misrouted", "cancelled"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message, leased to whoever received this.

    Attributes:
        queue: the queue it was sent to.
        token: names this delivery: what it is settled, released or refreshed by.
        raw: the message as kombu encoded it.
        verdict: why it must not run, else empty.
        lapses: how many losses of workers it is blamed for: those in which no other message that
            was lost with the worker had been blamed more often.
        collected: the raw messages that are to be run with it as one turn.
        is_redelivered: whether it was delivered before.
        waited: seconds since it was taken in from its queue.
        behind: of them, before its first delivery, behind others of its session.
        rolls_back: a list in JSON of the job and the turn that it had cancelled; else empty.
    """

    queue: str
    token: str
    raw: bytes = field(repr=False)
    verdict: Verdict
    lapses: int
    collected: tuple[bytes, ...] = field(repr=False)
    is_redelivered: bool
    waited: float = 0.0
    behind: float = 0.0
    rolls_back: bytes = b""


@dataclass(frozen=True, slots=True)
class Burial:
    """A message that became a dead letter, and whose caller is to be told so."""

    letter_id: str
    job_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class QueuedTurn:
    """A turn that was taken in and has to wait for its session; each is named once.

    Attributes:
        job_id: the Celery task's id.
        turn_id: the turn's.
        user_id: the tenant.
        session_key: the session's.
        ahead: how many messages of the session are before it.
        is_notification: whether it answers a notification.
    """

    job_id: str
    turn_id: str
    user_id: str
    session_key: str
    ahead: int
    is_notification: bool = False


@dataclass(frozen=True, slots=True)
class Renewal:
    """What prolonging leases found.

    Attributes:
        lost: tokens of deliveries that are not the caller's any more.
        cancelled: ids of jobs that are, and are to be stopped.
    """

    lost: tuple[str, ...] = ()
    cancelled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What a call of `Schedule.exchange` gave.

    Attributes:
        deliveries: messages to run.
        interrupts: ids of the jobs that a newer turn of their session interrupts.
        buried: messages that nobody could read.
        more: whether another call would find more at once.
        put: the reasons of all that became dead letters with this call.
        queued: turns that were taken in and have to wait for their session.
    """

    deliveries: tuple[Delivery, ...]
    interrupts: tuple[str, ...]
    buried: tuple[Burial, ...]
    more: bool
    put: tuple[str, ...] = ()
    queued: tuple[QueuedTurn, ...] = ()

    @classmethod
    def of(cls, answer: Sequence[Any]) -> Self:
        """Read the script's answer."""
        deliveries, interrupts, buried, more, put, queued = answer
        return cls(
            tuple(
                Delivery(
                    queue.decode(),
                    token.decode(),
                    raw,
                    verdict.decode(),
                    int(lapses),
                    tuple(raws),
                    bool(again),
                    int(waited) / 1000,
                    int(behind) / 1000,
                    rolls_back,
                )
                for queue, token, raw, verdict, lapses, raws, again, waited, behind, rolls_back in (
                    deliveries
                )
            ),
            tuple(job.decode() for job in interrupts),
            burials_of(buried),
            bool(more),
            tuple(reason.decode() for reason in put),
            tuple(
                QueuedTurn(
                    job.decode(),
                    turn.decode(),
                    user.decode(),
                    session.decode(),
                    ahead,
                    bool(is_mark),
                )
                for job, turn, user, session, ahead, is_mark in queued
            ),
        )


def burials_of(found: Iterable[Sequence[bytes]]) -> tuple[Burial, ...]:
    """Read the burials in an answer of the script."""
    return tuple(Burial(*(part.decode() for part in parts)) for parts in found)
