"""What is known of a row after it ran; the checks read nothing else.

Times are seconds of ``time.monotonic``, which all processes of one machine share.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

CallOutcome = Literal["answered", "refused", "cut", "abandoned"]
PostOutcome = Literal["stored", "replayed", "conflict", "refused"]
PostKind = Literal["message", "document", "task", "heartbeat"]
AckOutcome = Literal["stored", "repeated", "refused"]


@dataclass(frozen=True, slots=True)
class SentTurn:
    """A turn as it was sent.

    Attributes:
        token: names it everywhere.
        user_id: its tenant.
        celery_ids: of every Celery task that asked for it; more than one for duplicates, none for
            what the backend or the clock asked for.
        tool: whether the model creates a document in it.
        at: when it was sent.
        notified: whether it is a notification's, which is to be acknowledged.
        reply: what its answer is posted as.
    """

    token: str
    user_id: str
    celery_ids: tuple[str, ...]
    tool: bool
    at: float
    notified: bool = False
    reply: PostKind = "message"


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call of the model.

    Attributes:
        token: of the turn.
        step: 1 for the turn's first call.
        worker: who called.
        at: when the request was here.
        ended: when the answer was written whole, or the connection ended.
        outcome: ``answered``: written whole; ``refused``: an error status, as a fault wants it;
            ``cut``: broken off by us; ``abandoned``: the caller went away before the answer.
        body_hash: of the request.
    """

    token: str
    step: int
    worker: str
    at: float
    ended: float
    outcome: CallOutcome
    body_hash: str


@dataclass(frozen=True, slots=True)
class Post:
    """One create request at the backend.

    Attributes:
        kind: of thing.
        token: of the turn; for a task, its title.
        user_id: the tenant by the agent token.
        worker: who called.
        at: when it was stored or refused.
        key: its idempotency key.
        body_hash: of the request's bytes.
        outcome: ``stored``: new; ``replayed``: the key and the bytes were known; ``conflict``:
            the key was known with other bytes (409); ``refused``: by a fault, nothing was stored.
        content: what was stored.
        thread: title of the task that it belongs to.
    """

    kind: PostKind
    token: str
    user_id: str
    worker: str
    at: float
    key: str
    body_hash: str
    outcome: PostOutcome
    content: str = ""
    thread: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    """One attempt to acknowledge a notification.

    Attributes:
        token: of the notification.
        worker: who called.
        at: when.
        outcome: ``stored``: it counts as delivered from now on, whatever was answered;
            ``repeated``: it did before; ``refused``: by a fault, nothing was stored.
    """

    token: str
    worker: str
    at: float
    outcome: AckOutcome


@dataclass(frozen=True, slots=True)
class Tick:
    """A due job that a Beat has sent.

    Attributes:
        schedule: its name in ``beat_schedule.py``.
        beat: who sent it.
        at: when.
        stock: whether that Beat has Celery's own scheduler, which knows of no other Beat.
    """

    schedule: str
    beat: str
    at: float
    stock: bool = False


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """The result of one Celery task; ``state`` is PENDING where there is none.

    Attributes:
        token: of the turn.
        celery_id: of the task.
        state: Celery's.
        turn_id: in the result, where it succeeded.
        response: in the result, where it succeeded.
        error: the exception's class, where it failed.
    """

    token: str
    celery_id: str
    state: str
    turn_id: str | None = None
    response: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Heard:
    """What one listener of a turn's stream has in the end.

    Attributes:
        token: of the turn.
        text: of the last step, without what `retry` made void; None where there is none.
        response: that `done` told.
        connections: that it took.
        faults: what it heard that no listener may hear.
    """

    token: str
    text: str | None
    response: str | None
    connections: int
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A fault as it happened.

    Attributes:
        what: for people, such as ``kill -9``.
        at: when it began.
        until: when it was over: the process ran again, the server answered again; infinity for
            a worker that is dead.
        workers: those that it struck (killed, frozen, told to stop).
        state: whether it struck Redis.
        erases: whether it took away what had been journaled.
        token: the turn at whose point it struck, where it was aimed.
        point: where in the turn.
        beat: the leading Beat, where that was struck.
    """

    what: str
    at: float
    until: float
    workers: tuple[str, ...] = ()
    state: bool = False
    erases: bool = False
    token: str | None = None
    point: str | None = None
    beat: str | None = None


@dataclass(frozen=True)
class RowRecord:
    """Everything that happened in one row.

    Attributes:
        crashed: workers and Beats that ended by themselves, with their exit codes.
        notes: what should be told besides.
        seconds: that the row took.
    """

    row: str
    seed: int
    sent: tuple[SentTurn, ...] = ()
    calls: tuple[ModelCall, ...] = ()
    posts: tuple[Post, ...] = ()
    ends: tuple[TurnEnd, ...] = ()
    acks: tuple[Ack, ...] = ()
    ticks: tuple[Tick, ...] = ()
    heard: tuple[Heard, ...] = ()
    disturbances: tuple[Disturbance, ...] = ()
    crashed: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    settings: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)
