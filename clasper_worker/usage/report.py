"""Reading the counters of usage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import redis.asyncio as redis
from redis.exceptions import RedisError

from clasper_worker.engine.redis.faults import typed_error
from clasper_worker.usage.counters import KEPT_DAYS, PREFIX, Dimension, Totals, total

_CALL_SECONDS = 5.0


def kept_days(since: date | None = None, *, now: datetime | None = None) -> list[date]:
    """The days that are kept, oldest first, from ``since`` on."""
    today = (now or datetime.now(UTC)).astimezone(UTC).date()
    days = [today - timedelta(days=ago) for ago in reversed(range(KEPT_DAYS))]
    return [day for day in days if since is None or day >= since]


async def usage_by_day(
    client: redis.Redis, days: Sequence[date], dimension: Dimension | None = None, name: str = ""
) -> dict[date, Totals]:
    """Each day's totals: all, or one name's of a dimension; days without any are left out.

    Raises:
        StateUnavailableError: Redis does not answer.
    """
    part = "all" if dimension is None else f"{dimension}:{name}"
    keys = [_key(day, part) for day in days]
    answers = await _hashes(client, keys)
    totals = zip(days, map(Totals.of, answers), strict=True)
    return {day: found for day, found in totals if found != Totals()}


async def usage_by_name(
    client: redis.Redis, days: Sequence[date], dimension: Dimension
) -> dict[str, Totals]:
    """The totals of each name of a dimension over some days, the most tokens first.

    Raises:
        StateUnavailableError: Redis does not answer.
    """
    if not days:
        return {}
    try:
        async with asyncio.timeout(_CALL_SECONDS), client.pipeline(transaction=False) as pipe:
            for day in days:
                pipe.smembers(_key(day, f"names:{dimension}"))
            named = await pipe.execute()
    except (RedisError, OSError) as exc:  # a TimeoutError is one
        raise typed_error(exc) from exc
    pairs = [(day, name) for day, names in zip(days, named, strict=True) for name in names]
    keys = [_key(day, f"{dimension}:").encode() + name for day, name in pairs]
    found: dict[str, list[Totals]] = {}
    for (_, name), fields in zip(pairs, await _hashes(client, keys), strict=True):
        found.setdefault(name.decode("utf-8", "replace"), []).append(Totals.of(fields))
    totals = {name: total(parts) for name, parts in found.items()}
    order = sorted(totals, key=lambda name: -totals[name].input_tokens - totals[name].output_tokens)
    return {name: totals[name] for name in order}


async def _hashes(
    client: redis.Redis, keys: Sequence[str] | Sequence[bytes]
) -> list[dict[bytes, bytes]]:
    if not keys:
        return []
    try:
        async with asyncio.timeout(_CALL_SECONDS), client.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.hgetall(key)
            answers: list[dict[bytes, bytes]] = await pipe.execute()
    except (RedisError, OSError) as exc:  # a TimeoutError is one
        raise typed_error(exc) from exc
    return answers


def _key(day: date, part: str) -> str:
    return f"{PREFIX}{day}:{part}"
