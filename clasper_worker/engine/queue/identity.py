"""How a turn's id follows from its user and idempotency key."""

from __future__ import annotations

import uuid

# A namespace of our own, so that our ids collide with nobody else's name-based UUIDs.
TURN_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "clasper-worker:turn")


def turn_id_for(user_id: str, idempotency_key: str | None, job_id: str) -> str:
    """The turn's id: from the user and the idempotency key, else the Celery task's id."""
    if idempotency_key is None:
        return job_id
    return str(uuid.uuid5(TURN_NAMESPACE, f"{len(user_id)}:{user_id}:{idempotency_key}"))
