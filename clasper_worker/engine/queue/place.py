"""Where a job stands that the scheduler knows: which turn it asks for, and what it waits for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from clasper_worker.engine.queue.scheduler import Schedule, redis_answers

_KEY = "clasper:"


@dataclass(frozen=True, slots=True)
class Place:
    """A job that has not ended.

    Attributes:
        turn_id: the turn that it asks for.
        waits_for: ``worker``: one with a free place; ``session``: earlier turns of it;
            ``user_limit``: as many of its user's turns as may run do. None: it runs.
        ahead: turns of its session before it.
    """

    turn_id: str
    waits_for: Literal["worker", "session", "user_limit"] | None
    ahead: int = 0


def place_of(schedule: Schedule, job_id: str) -> Place | None:
    """Look a job up; None of one that no worker has taken in yet, or that has ended.

    Raises:
        StateUnavailableError: Redis does not answer, or refuses.
    """
    client: Any = schedule.client
    with redis_answers():
        tag = client.hget(f"{_KEY}jobs", job_id)
        if tag is None:
            return None
        name = tag.decode()
        turn, lane, user = client.hmget(f"{_KEY}message:{name}", "u", "s", "t")
        with client.pipeline(transaction=False) as pipe:
            pipe.sismember(f"{_KEY}running", name)
            pipe.lpos(f"{_KEY}lane:{(lane or b'').decode()}", name)
            pipe.sismember(f"{_KEY}capped", user or b"")
            is_running, ahead, is_capped = pipe.execute()
    turn_id = (turn or b"").decode() or job_id
    if is_running:
        return Place(turn_id, None)
    if ahead:
        return Place(turn_id, "session", ahead)
    return Place(turn_id, "user_limit" if is_capped else "worker")
