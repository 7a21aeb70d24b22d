"""The shared counters of usage: small hashes in Redis, by day and dimension.

====================================================  =========================================
``clasper:usage:DAY:all``                             everything of a day (UTC, ``2026-03-29``)
``clasper:usage:DAY:user:USER_ID``                    of one user
``clasper:usage:DAY:role:ROLE``                       of one role, of whatever user
``clasper:usage:DAY:workspace:NAME``                  of one workspace, ``default`` among them
``clasper:usage:DAY:model:NAME``                      of one model, by the name that it gave
``clasper:usage:DAY:names:DIMENSION``                 a set: the names that a day has keys of
``clasper:usage:counted:DIGEST``                      what was counted of one job so far
====================================================  =========================================

A hash holds whole numbers, so that sums are exact: ``requests`` (jobs that a model answered),
``input`` and ``output`` (tokens), ``cost`` (billionths of a USD), and ``unpriced`` (model calls
whose price or usage is not known, which ``cost`` leaves out). A day's keys live `KEPT_DAYS`.

What a job has used is reported as its total, however often it runs; added is what is more than was
counted of it. So a job that runs again, or whose write is repeated, counts once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any, Literal

from clasper_worker.engine.redis.scripts import Argument, State, StateScript
from clasper_worker.observability.events import ModelSpend

KEPT_DAYS = 93
"""How many days are kept, today included: a quarter."""

MAX_NAMES = 1_000
"""Of roles, workspaces and models a day; more are counted as `OTHER`: callers choose the names."""

OTHER = "(other)"
PREFIX = "clasper:usage:"
NANO = 1_000_000_000

Dimension = Literal["user", "role", "workspace", "model"]
DIMENSIONS: tuple[Dimension, ...] = ("user", "role", "workspace", "model")

_NAME_CHARS = 256

_COUNT = StateScript("""
-- KEYS: what was counted of the job.
-- ARGV: its seconds to live, the prefix of the day's keys, when they expire, the most names,
-- the name of the rest, how many dimensions, each with its name, and for each model its name,
-- input, output, cost and unpriced: the totals of the job.
local call, counted, prefix = redis.call, KEYS[1], ARGV[2]
local FIELDS = {'input', 'output', 'cost', 'unpriced'}

local function day_key(dimension, name)
  local names = prefix .. 'names:' .. dimension
  if call('SISMEMBER', names, name) == 0 then
    if dimension ~= 'user' and call('SCARD', names) >= tonumber(ARGV[4]) then
      name = ARGV[5]
    end
    call('SADD', names, name)
    call('EXPIREAT', names, ARGV[3])
  end
  return prefix .. dimension .. ':' .. name
end

local function add(key, more)
  for field, amount in pairs(more) do
    if amount > 0 then
      call('HINCRBY', key, field, string.format('%.0f', amount))
    end
  end
  call('EXPIREAT', key, ARGV[3])
end

local dimensions = tonumber(ARGV[6])
local all = {requests = call('HSETNX', counted, 'requests', 1)}
for i = 7 + 2 * dimensions, #ARGV, 5 do
  local model, more, any = ARGV[i], {}, false
  more.requests = call('HSETNX', counted, 'model:' .. model, 1)
  for n, field in ipairs(FIELDS) do
    local name = field .. ':' .. model
    local total = tonumber(ARGV[i + n])
    local before = tonumber(call('HGET', counted, name) or 0)
    more[field] = math.max(total - before, 0)
    all[field] = (all[field] or 0) + more[field]
    if more[field] > 0 then
      call('HSET', counted, name, ARGV[i + n])
      any = true
    end
  end
  if any or more.requests > 0 then
    add(day_key('model', model), more)
  end
end
call('EXPIRE', counted, ARGV[1])

local any = false
for _, amount in pairs(all) do
  any = any or amount > 0
end
if any then
  add(prefix .. 'all', all)
  for i = 7, 5 + 2 * dimensions, 2 do
    add(day_key(ARGV[i], ARGV[i + 1]), all)
  end
end
return 1
""")


@dataclass(frozen=True, slots=True)
class Spender:
    """Whose usage it is.

    Attributes:
        job: names the turn, or the job that is none, for all its runs.
        user_id: the tenant's user; None where the job has none.
        role: the agent's; None likewise.
        workspace: its name; None likewise.
    """

    job: str
    user_id: str | None = None
    role: str | None = None
    workspace: str | None = None

    @property
    def dimensions(self) -> list[tuple[Dimension, str]]:
        """By what it is counted, the models aside."""
        named: tuple[tuple[Dimension, str | None], ...] = (
            ("user", self.user_id),
            ("role", self.role),
            ("workspace", self.workspace),
        )
        return [(dimension, name[:_NAME_CHARS]) for dimension, name in named if name]


async def count_usage(
    state: State,
    spender: Spender,
    spent: Sequence[ModelSpend],
    *,
    moment: datetime,
    ttl_seconds: int,
) -> None:
    """Bring the counters up to what a job has used in all.

    Args:
        state: our own state's Redis.
        spender: whose it is.
        spent: the job's totals, one for each model.
        moment: when; decides the day.
        ttl_seconds: how long the job is remembered as counted: as long as it may run again.

    Raises:
        StateUnavailableError: Redis does not answer.
    """
    job = f"{len(spender.job)}:{spender.job}{spender.user_id or ''}"
    key = f"{PREFIX}counted:{sha256(job.encode('utf-8', 'replace')).hexdigest()}"
    day = moment.astimezone(UTC).date()
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    expires = int((midnight + timedelta(days=KEPT_DAYS)).timestamp())
    arguments: list[Argument] = [ttl_seconds, f"{PREFIX}{day}:", expires, MAX_NAMES, OTHER]
    dimensions = spender.dimensions
    arguments += [len(dimensions), *(part for pair in dimensions for part in pair)]
    for model in spent:
        cost = 0 if model.cost_usd is None else round(model.cost_usd * NANO)
        arguments += [model.model[:_NAME_CHARS], model.input_tokens, model.output_tokens]
        arguments += [cost, model.unpriced_calls]
    await state.call(_COUNT, [key], [_storable(part) for part in arguments])


def _storable(value: Argument) -> Argument:
    return value.encode("utf-8", "replace") if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums of usage; ``cost_nano_usd`` leaves out the ``unpriced`` model calls."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_nano_usd: int = 0
    unpriced: int = 0

    @classmethod
    def of(cls, fields: dict[bytes, bytes]) -> Totals:
        """Of one hash."""
        names = (b"requests", b"input", b"output", b"cost", b"unpriced")
        return cls(*(int(fields.get(name, 0)) for name in names))

    def __add__(self, other: Totals) -> Totals:
        return Totals(
            self.requests + other.requests,
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cost_nano_usd + other.cost_nano_usd,
            self.unpriced + other.unpriced,
        )

    @property
    def cost_usd(self) -> float | None:
        """In USD; None where none of it has a known price: zero would read as free."""
        if self.unpriced and not self.cost_nano_usd:
            return None
        return self.cost_nano_usd / NANO


def total(parts: Iterable[Totals]) -> Totals:
    """Their sum."""
    return sum(parts, Totals())


def as_told(totals: Totals) -> dict[str, Any]:
    """In the words of ``GET /usage``."""
    return {
        "requestCount": totals.requests,
        "totalInputTokens": totals.input_tokens,
        "totalOutputTokens": totals.output_tokens,
        "totalTokens": totals.input_tokens + totals.output_tokens,
        "totalCost": totals.cost_usd,
        "currency": "USD",
        "unpricedCalls": totals.unpriced,
    }
