"""What waits, runs and is stuck in the broker's Redis, as one look at it tells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clasper_worker.config.names import QUEUES
from clasper_worker.engine.queue.scheduler import Schedule, redis_answers

# By counters that the scheduler keeps: its cost does not grow with what waits, only with what runs,
# which the workers' slots bound. The lists of a queue are kombu's, by priority.
READ_STATUS = """
local P, names, rows, seen, running = 'clasper:', {}, {}, {}, {}
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
local others = redis.call('SMEMBERS', P .. 'queues')
table.sort(others)
for _, list in ipairs({ ARGV, others }) do
  for _, name in ipairs(list) do
    if not seen[name] then names[#names + 1] = name end
    seen[name] = true
  end
end
for _, tag in ipairs(redis.call('SMEMBERS', P .. 'running')) do
  local queue = redis.call('HGET', P .. 'message:' .. tag, 'q')
  if queue then running[queue] = (running[queue] or 0) + 1 end
end
for _, name in ipairs(names) do
  local arrived, oldest, depths = 0, now, {}
  for _, priority in ipairs({ '', '\\6\\0223', '\\6\\0226', '\\6\\0229' }) do
    arrived = arrived + redis.call('LLEN', name .. priority)
  end
  for _, state in ipairs({ 'ready', 'behind' }) do
    local key = P .. 'depth:' .. state .. ':' .. name
    depths[#depths + 1] = redis.call('ZCARD', key)
    for _, first in ipairs(redis.call('ZRANGE', key, 0, 0)) do
      local since = redis.call('HGET', P .. 'message:' .. first, 'at')
      oldest = math.min(oldest, tonumber(since or now))
    end
  end
  rows[#rows + 1] = { name, arrived, depths[1], depths[2], running[name] or 0, now - oldest }
end
local suspects = redis.call('EXISTS', P .. 'suspect') + redis.call('LLEN', P .. 'suspects')
return {
  rows, redis.call('SCARD', P .. 'capped'), suspects, redis.call('ZCARD', P .. 'dead'),
  redis.call('ZCARD', P .. 'workers'),
}
"""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue.

    Attributes:
        arrived: messages that no worker has taken in yet.
        ready: those that may run.
        behind: those that wait behind another of their session.
        running: messages that a worker has.
        oldest: seconds since the one that waits longest was taken in; None where none was.
    """

    arrived: int = 0
    ready: int = 0
    behind: int = 0
    running: int = 0
    oldest: float | None = None

    @property
    def waiting(self) -> int:
        """Messages that no worker runs."""
        return self.arrived + self.ready + self.behind


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """All queues.

    Attributes:
        queues: by name.
        capped: users of whom no more turns run until one of theirs ends
            (``CLASPER_TENANT_CONCURRENCY``).
        suspect: messages that lost several workers, and run one at a time.
        dead: dead letters.
        workers: worker processes that looked for lapsed leases within the last lease's time (two
            leases', where none is left).
    """

    queues: dict[str, QueueStatus]
    capped: int
    suspect: int
    dead: int
    workers: int

    @property
    def waiting(self) -> int:
        """Messages that wait, in all queues."""
        return sum(queue.waiting for queue in self.queues.values())

    @property
    def running(self) -> int:
        """Messages that run, of all queues."""
        return sum(queue.running for queue in self.queues.values())

    @property
    def oldest(self) -> float | None:
        """Seconds that the oldest of all has waited."""
        ages = [queue.oldest for queue in self.queues.values() if queue.oldest is not None]
        return max(ages, default=None)


def read_broker_status(schedule: Schedule) -> BrokerStatus:
    """Look at the queues, with one call that takes as long however much waits.

    Raises:
        StateUnavailableError: Redis does not answer, or refuses.
    """
    with redis_answers():
        return broker_status_of(schedule.client.eval(READ_STATUS, 0, *QUEUES))


def broker_status_of(answer: Sequence[Any]) -> BrokerStatus:
    """Read what `READ_STATUS` answered, asked of `QUEUES`."""
    rows, capped, suspect, dead, workers = answer
    return BrokerStatus(
        {
            name.decode(): QueueStatus(
                arrived, ready, behind, running, age / 1000 if ready + behind else None
            )
            for name, arrived, ready, behind, running, age in rows
        },
        capped,
        suspect,
        dead,
        workers,
    )
