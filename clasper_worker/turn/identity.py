"""Which turn a request is: the same identity is the same turn (contract Part 2)."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass

# A namespace of our own, so that our ids collide with nobody else's name-based UUIDs.
TURN_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "clasper-worker:turn")


@dataclass(frozen=True, slots=True)
class TurnIdentity:
    """A turn's ids.

    Attributes:
        turn_id: the same for every Celery task that asks for this turn.
        job_id: the Celery task that runs it.
        trace_id: 32 hexadecimal digits, joins logs and traces of one run.
    """

    turn_id: str
    job_id: str
    trace_id: str


def turn_id_for(user_id: str, idempotency_key: str | None, job_id: str) -> str:
    """The turn's id: from the user and the idempotency key, else the Celery task's id."""
    if idempotency_key is None:
        return job_id
    return str(uuid.uuid5(TURN_NAMESPACE, f"{len(user_id)}:{user_id}:{idempotency_key}"))


def identify_turn(user_id: str, idempotency_key: str | None, job_id: str) -> TurnIdentity:
    """Make the identity of one run."""
    return TurnIdentity(
        turn_id=turn_id_for(user_id, idempotency_key, job_id),
        job_id=job_id,
        trace_id=f"{random.getrandbits(128):032x}",
    )
