"""Ticks of Beat into one job an agent, each when it is due.

Agents are spread over an interval by their names, so that ten thousand of them are not one spike.
A tick enqueues those that have come due since the last one: how far that came is noted, so that a
tick that is repeated, or comes from another Beat, finds nothing left to do. What was missed while
no Beat ran is made good, once for each agent: standups of half a day, heartbeats of a while, as
all those of an interval would be a spike, and the next ones come anyway.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from clasper_worker.config.local_time import latest_day
from clasper_worker.config.names import PERIODIC_QUEUE
from clasper_worker.engine.queue.identity import TURN_NAMESPACE
from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.enqueue import Job, JobQueue
from clasper_worker.periodic.notes import Slots

STANDUP_SPREAD_SECONDS = 600.0
"""Standups of one local hour are spread over so long."""

_HEARTBEATS_CATCH_UP_SECONDS = 60.0  # or a sixth of the interval
_CATCH_UP_SECONDS = 43_200.0  # a standup that was missed for longer than this is left out
_REMEMBERED_SECONDS = 604_800.0
_AT_ONCE = 200  # enqueued in one go, while the loop does other things

Due = Callable[[Agent, float], str]
"""Names the newest slot of an agent that had come by a moment, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class Tick:
    """What a tick did.

    Attributes:
        agents: how many there are.
        enqueued: how many of them were due.
        elsewhere: whether another tick was under way, so that this one did nothing.
    """

    agents: int
    enqueued: int
    elsewhere: bool = False


class FanOut:
    """Enqueues what is due.

    Args:
        slots: notes that all workers share.
        queue: where the jobs go.
    """

    def __init__(self, slots: Slots, queue: JobQueue) -> None:
        self._slots = slots
        self._queue = queue

    async def heartbeats(
        self, agents: Sequence[Agent], interval: float, *, now: float, holder: str
    ) -> Tick:
        """Enqueue the heartbeats that have come due; ``interval`` 0: none ever does.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if interval <= 0:
            return Tick(len(agents), 0)

        def slot(agent: Agent, moment: float) -> str:
            return str(math.floor(moment / interval - agent.place))

        missed = min(interval, max(_HEARTBEATS_CATCH_UP_SECONDS, interval / 6))
        return await self._tick("heartbeat", agents, slot, missed, now=now, holder=holder)

    async def standups(
        self, agents: Sequence[Agent], at: time, zone: str, *, now: float, holder: str
    ) -> Tick:
        """Enqueue the standups that have come due.

        Args:
            agents: whose.
            at: the time of day.
            zone: of agents that have none of their own.
            now: seconds since the epoch.
            holder: names this tick among others.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        # Zones are few, and agents many: each zone's day is looked up once.
        day_of = lru_cache(maxsize=None)(_day)

        def slot(agent: Agent, moment: float) -> str:
            # By steps of a minute, which many agents share.
            delayed = math.floor((moment - agent.place * STANDUP_SPREAD_SECONDS) / 60)
            return day_of(delayed, at, agent.timezone or zone).isoformat()

        return await self._tick("standup", agents, slot, _CATCH_UP_SECONDS, now=now, holder=holder)

    async def _tick(
        self,
        what: str,
        agents: Sequence[Agent],
        slot: Due,
        catch_up: float,
        *,
        now: float,
        holder: str,
    ) -> Tick:
        async with self._slots.lock(f"{what}s", holder) as is_mine:
            if not is_mine:
                return Tick(len(agents), 0, elsewhere=True)
            (text,) = await self._slots.read([f"{what}s:until"])
            since = now if text is None else max(float(text), now - catch_up)
            due: list[Agent] = []
            if since < now:  # a clock that ran ahead is waited for
                due = [agent for agent in agents if slot(agent, since) != slot(agent, now)]
            for start in range(0, len(due), _AT_ONCE):
                part = due[start : start + _AT_ONCE]
                await self._queue.put([_job(what, agent, slot(agent, now)) for agent in part])
            if since <= now:
                await self._slots.write([f"{what}s:until"], f"{now:.3f}", _REMEMBERED_SECONDS)
        return Tick(len(agents), len(due))


def _day(minute: int, at: time, zone: str) -> date:
    return latest_day(datetime.fromtimestamp(minute * 60, UTC), at, ZoneInfo(zone))


def _job(what: str, agent: Agent, slot: str) -> Job:
    """The same for the same slot, so that it is known when it comes twice."""
    fields: dict[str, Any] = {
        "user_id": agent.user_id,
        "agent_role": agent.agent_role,
        "timezone": agent.timezone,
        "active_hours": agent.active_hours if what == "heartbeat" else None,
        "slot": slot,
    }
    return Job(
        f"clasper.{what}",
        {name: value for name, value in fields.items() if value is not None},
        PERIODIC_QUEUE,
        str(uuid.uuid5(TURN_NAMESPACE, f"{what}:{agent.name}:{slot}")),
        keeps_result=False,
    )
