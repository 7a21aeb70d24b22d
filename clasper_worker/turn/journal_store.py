"""Where what is known of turns is kept: a hash a turn in Redis, or this process's memory.

A turn may be run more than once: its key is used again, its worker dies. So what it has decided is
recorded here before it is acted on, and each entry once: the first writer's stays, and every
writer is told which that is. What the entries mean is `clasper_worker.turn.journal`'s matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Protocol

from clasper_worker.engine.redis.scripts import State, StateScript
from clasper_worker.turn.models import TurnIdentity
from clasper_worker.turn.request import SendRequest

REQUEST = "request"
"""The entry that holds the digest of the turn's request."""
SPENT = "spent"
"""The entry that holds the seconds that runs of the turn took; the one that may grow."""
STREAMED = "streamed"
"""The entry that is there once a run began that reports the turn's text as it comes."""

Entries = dict[str, str]


class TurnLedger(Protocol):
    """Remembers turns for as long as their results are kept."""

    async def claim(self, key: str, digest: str, *, streamed: bool = False) -> Entries:
        """Record the request's digest, unless one is, and return all that is known of the turn.

        With ``streamed``, `STREAMED` is recorded as well, for those who claim the turn later.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        ...

    async def known(self, key: str) -> Entries:
        """All that is known of a turn, without a claim to it; empty where nothing is.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        ...

    async def record(self, key: str, entries: Sequence[tuple[str, str]], spent: float) -> Entries:
        """Record entries in their order, each unless it is known already.

        From the first on that is known with another text, none is recorded any more: what comes
        after it followed from what was not so.

        Args:
            key: which turn.
            entries: names and texts.
            spent: seconds that the turn has taken by now, in all its runs.

        Returns:
            Those of these entries that are known now, as they were recorded first.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        ...


def ledger_key(request: SendRequest, turn: TurnIdentity) -> str:
    """What the ledger knows a turn by."""
    return key_of_turn(request.user_id, turn.turn_id)


def key_of_turn(user_id: str, turn_id: str) -> str:
    """What the ledger knows a turn by: the id within its user, whatever ids others choose."""
    return hashlib.sha256(f"{len(turn_id)}:{turn_id}{user_id}".encode()).hexdigest()


def request_digest(request: SendRequest) -> str:
    """A digest of everything in the request that makes it the same request."""
    return hashlib.sha256(request.model_dump_json(exclude={"stream"}).encode()).hexdigest()


def entries_key(key: str) -> str:
    """Where in Redis the entries of a turn of this ledger key lie: a hash."""
    return f"clasper:turn:{key}"


class MemoryLedger:
    """A ledger of this process alone, for tests and for programs that run turns themselves."""

    def __init__(self) -> None:
        self._turns: dict[str, Entries] = {}

    async def claim(self, key: str, digest: str, *, streamed: bool = False) -> Entries:
        """See `TurnLedger.claim`."""
        known = self._turns.setdefault(key, {})
        known.setdefault(REQUEST, digest)
        before = dict(known)
        if streamed:
            known[STREAMED] = "1"
        return before

    async def known(self, key: str) -> Entries:
        """See `TurnLedger.known`."""
        return dict(self._turns.get(key, {}))

    async def record(self, key: str, entries: Sequence[tuple[str, str]], spent: float) -> Entries:
        """See `TurnLedger.record`."""
        known = self._turns.setdefault(key, {})
        for name, text in entries:
            if known.setdefault(name, text) != text:
                break
        if spent > float(known.get(SPENT, 0)):
            known[SPENT] = f"{spent:g}"
        return {name: known[name] for name, _ in entries if name in known}


_CLAIM = StateScript("""
-- KEYS: the turn. ARGV: the request's digest, seconds to live, 1 where the run is streamed.
redis.call('HSETNX', KEYS[1], 'request', ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[2])
local known = redis.call('HGETALL', KEYS[1])
if ARGV[3] == '1' then
  redis.call('HSET', KEYS[1], 'streamed', '1')
end
return known
""")

_KNOWN = StateScript("return redis.call('HGETALL', KEYS[1])")

_RECORD = StateScript("""
-- KEYS: the turn. ARGV: seconds to live, seconds spent, then names and texts.
-- Answers for each: 1 where it stands as given, else the text that was first, or nothing.
local answer, agreed = {}, true
for i = 3, #ARGV, 2 do
  local known = redis.call('HGET', KEYS[1], ARGV[i])
  if not known and agreed then
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
    known = ARGV[i + 1]
  end
  if known == ARGV[i + 1] then
    known = 1
  else
    agreed = false
  end
  answer[#answer + 1] = known
end
if tonumber(ARGV[2]) > tonumber(redis.call('HGET', KEYS[1], 'spent') or 0) then
  redis.call('HSET', KEYS[1], 'spent', ARGV[2])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return answer
""")


class RedisLedger:
    """The ledger shared by all workers: one script, and so one round trip at most, a call.

    Args:
        state: our own state's Redis.
        ttl_seconds: how long a turn is remembered after it was last heard of.
    """

    def __init__(self, state: State, *, ttl_seconds: int) -> None:
        self._state = state
        self._ttl = ttl_seconds

    async def claim(self, key: str, digest: str, *, streamed: bool = False) -> Entries:
        """See `TurnLedger.claim`."""
        arguments: list[str | int] = [digest, self._ttl, int(streamed)]
        return _entries(await self._call(_CLAIM, key, arguments))

    async def known(self, key: str) -> Entries:
        """See `TurnLedger.known`."""
        return _entries(await self._call(_KNOWN, key, ()))

    async def record(self, key: str, entries: Sequence[tuple[str, str]], spent: float) -> Entries:
        """See `TurnLedger.record`."""
        texts = (part for entry in entries for part in entry)
        arguments: list[str | int] = [self._ttl, f"{spent:g}", *texts]
        known: Entries = {}
        answers = await self._call(_RECORD, key, arguments)
        for (name, given), first in zip(entries, answers, strict=True):
            if first is not None:
                known[name] = given if first == 1 else first.decode()
        return known

    async def _call(
        self, script: StateScript, key: str, arguments: Sequence[str | int]
    ) -> list[Any]:
        answer: list[Any] = await self._state.call(script, [entries_key(key)], arguments)
        return answer


def _entries(flat: Sequence[bytes]) -> Entries:
    texts = [text.decode() for text in flat]
    return dict(zip(texts[::2], texts[1::2], strict=True))
