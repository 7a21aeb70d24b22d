"""What is known of a turn across its runs: its request's digest, and how it was decided to end.

A turn may be run more than once: its key is used again, its worker dies. The first run fixes the
request; another request under the same turn is a conflict. Whoever first decides the turn's
outcome fixes that too, before anything of it is posted, so that every later run posts the very
same bytes instead of asking the model again.
"""

from __future__ import annotations

import hashlib
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field

from clasper_worker.errors import TurnConflictError
from clasper_worker.llm.cost import Cost, Usage
from clasper_worker.state import State, StateScript
from clasper_worker.turn.identity import TurnIdentity
from clasper_worker.turn.request import SendRequest

# KEYS: the turn. ARGV: a field, its value, another field, seconds to live.
_SET_ONCE = StateScript("""
redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return redis.call('HMGET', KEYS[1], ARGV[1], ARGV[3])
""")


class Outcome(BaseModel):
    """How a turn was decided to end, and what it took.

    Attributes:
        kind: ``reply``, or ``timed_out`` where the time limit came first.
        text: what is posted to the task.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["reply", "timed_out"]
    task_id: str
    text: str = Field(repr=False)
    usage: Usage = Usage()
    cost: Cost | None = None
    tool_calls: int = 0
    warning: str | None = None


class TurnLedger(Protocol):
    """Remembers turns for as long as their results are kept."""

    async def claim(self, key: str, digest: str) -> Outcome | None:
        """Fix the turn's request, and return its outcome if an earlier run decided one.

        Raises:
            TurnConflictError: the turn was claimed with another request.
            StateUnavailableError: the ledger cannot be reached.
        """
        ...

    async def decide(self, key: str, outcome: Outcome) -> Outcome:
        """Fix the turn's outcome, and return the one that was fixed first.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        ...


def ledger_key(request: SendRequest, turn: TurnIdentity) -> str:
    """What the ledger knows a turn by: the id within its user, whatever ids others choose."""
    return hashlib.sha256(
        f"{len(turn.turn_id)}:{turn.turn_id}{request.user_id}".encode()
    ).hexdigest()


def request_digest(request: SendRequest) -> str:
    """A digest of everything in the request that makes it the same request."""
    return hashlib.sha256(request.model_dump_json(exclude={"stream"}).encode()).hexdigest()


def same_request(known: str, digest: str) -> None:
    """Check a digest against the one that the turn was claimed with.

    Raises:
        TurnConflictError: they differ.
    """
    if known != digest:
        raise TurnConflictError(
            "The idempotency_key was used before with a different request: use a new key for a"
            " new request, or send the same request again",
            {"field": "idempotency_key"},
        )


class MemoryLedger:
    """A ledger of this process alone, for tests and for programs that run turns themselves."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}
        self._outcomes: dict[str, Outcome] = {}

    async def claim(self, key: str, digest: str) -> Outcome | None:
        """See `TurnLedger.claim`."""
        same_request(self._digests.setdefault(key, digest), digest)
        return self._outcomes.get(key)

    async def decide(self, key: str, outcome: Outcome) -> Outcome:
        """See `TurnLedger.decide`."""
        return self._outcomes.setdefault(key, outcome)


class RedisLedger:
    """The ledger shared by all workers: one hash a turn, one round trip a call.

    Args:
        state: our own state's Redis.
        ttl_seconds: how long a turn is remembered.
    """

    def __init__(self, state: State, *, ttl_seconds: int) -> None:
        self._state = state
        self._ttl = ttl_seconds

    async def claim(self, key: str, digest: str) -> Outcome | None:
        """See `TurnLedger.claim`."""
        known, outcome = await self._set_once(key, "request", digest, also="outcome")
        same_request(known, digest)
        return None if outcome is None else Outcome.model_validate_json(outcome)

    async def decide(self, key: str, outcome: Outcome) -> Outcome:
        """See `TurnLedger.decide`."""
        fixed, _ = await self._set_once(key, "outcome", outcome.model_dump_json(), also="request")
        return Outcome.model_validate_json(fixed)

    async def _set_once(
        self, key: str, field: str, value: str, *, also: str
    ) -> tuple[str, str | None]:
        own, other = await self._state.call(
            _SET_ONCE, [f"clasper:turn:{key}"], [field, value, also, self._ttl]
        )
        return _text(own), None if other is None else _text(other)


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
