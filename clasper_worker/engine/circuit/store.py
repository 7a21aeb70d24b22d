"""Where the gates' states lie: in Redis, for all workers.

A change is a pure function. Redis only compares and swaps, so that its rules stand in one place
(``breaker``), and gives the time, so that the workers' clocks need not agree.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import redis.asyncio as redis
from redis.exceptions import RedisError

from clasper_worker.engine.circuit.breaker import GateState, Transition, decode, encode

PREFIX = "clasper:gate:"
_TTL_MILLISECONDS = 600_000  # longer than anything that a state says matters
_ATTEMPTS = 20

_NOW = """
local time = redis.call('TIME')
local now = time[1] .. '.' .. string.format('%06d', time[2])
"""
_READ = _NOW + "return {now, #KEYS > 0 and redis.call('MGET', unpack(KEYS)) or {}}"
_SWAP = (
    _NOW
    + """
local found = redis.call('GET', KEYS[1]) or ''
if found ~= ARGV[1] then return {now, 0, found} end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return {now, 1, ARGV[2]}
"""
)


class StoreError(Exception):
    """The shared states could not be reached."""


@dataclass(frozen=True, slots=True)
class Reading:
    """States, and what the shared clock said; seconds."""

    states: tuple[GateState, ...]
    now: float


@dataclass(frozen=True, slots=True)
class Change:
    """What a change found and left, and what the shared clock said; seconds."""

    before: GateState
    after: GateState
    now: float


class StateStore(Protocol):
    """Keeps the gates' states. All of it raises `StoreError` where it cannot be reached."""

    async def read(self, names: Sequence[str]) -> Reading:
        """The states of these gates, in their order."""
        ...

    async def update(self, name: str, change: Transition) -> Change:
        """Apply a change to a gate's state, in one step as all others see it."""
        ...


class RedisStore:
    """States shared by all workers of one Redis, under ``clasper:gate:*``, for ten minutes each."""

    def __init__(self, client: redis.Redis) -> None:
        # Bytes in and out: what is compared and swapped must come back as it was.
        self._read: Any = client.register_script(_READ)
        self._swap: Any = client.register_script(_SWAP)

    async def read(self, names: Sequence[str]) -> Reading:
        """See `StateStore.read`; one call for all of them."""
        try:
            now, found = await self._read(keys=[PREFIX + name for name in names])
        except (RedisError, OSError) as exc:
            raise StoreError(type(exc).__name__) from exc
        return Reading(tuple(decode(text) for text in found), float(now))

    async def update(self, name: str, change: Transition) -> Change:
        """See `StateStore.update`; tried again where another worker was faster."""
        key = PREFIX + name
        try:
            now, (raw,) = await self._read(keys=[key])
            for _ in range(_ATTEMPTS):
                before = decode(raw)
                after = change(before, float(now))
                if after == before:
                    return Change(before, after, float(now))
                values = [raw or b"", encode(after), _TTL_MILLISECONDS]
                now, swapped, raw = await self._swap(keys=[key], args=values)
                if swapped:
                    return Change(before, after, float(now))
        except (RedisError, OSError) as exc:
            raise StoreError(type(exc).__name__) from exc
        raise StoreError("others change the state all the time")
