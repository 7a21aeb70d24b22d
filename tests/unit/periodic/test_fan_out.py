"""Ticks of Beat into jobs of agents."""

import asyncio
from collections import Counter
from datetime import UTC, datetime, time
from typing import Any

from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.fan_out import STANDUP_SPREAD_SECONDS, FanOut
from clasper_worker.periodic.notes import Slots

AGENTS = [Agent.of({"user_id": f"u{number}", "agent_role": "r"}) for number in range(300)]
START = datetime(2026, 3, 27, 12, tzinfo=UTC).timestamp()


class Beats:
    def __init__(self, slots: Slots, queue: Any) -> None:
        self.fan_out = FanOut(slots, queue)
        self.queue = queue

    async def tick(self, seconds: float, interval: float = 600, holder: str = "b") -> int:
        tick = await self.fan_out.heartbeats(AGENTS, interval, now=START + seconds, holder=holder)
        return tick.enqueued

    async def standups(self, now: datetime, agents: list[Agent], zone: str = "UTC") -> int:
        tick = await self.fan_out.standups(
            agents, time(2, 30), zone, now=now.timestamp(), holder="b"
        )
        return tick.enqueued


async def test_heartbeats_are_spread_over_the_interval_each_agent_once(
    slots: Slots, queue: Any
) -> None:
    beats = Beats(slots, queue)
    assert await beats.tick(0) == 0  # from now on
    sizes = [await beats.tick(10 * number) for number in range(1, 61)]
    assert sum(sizes) == 300
    assert max(sizes) < 25
    users = Counter(job.arguments["user_id"] for job in queue.jobs)
    assert set(users.values()) == {1}
    (job, *_) = queue.jobs
    assert (job.task, job.queue, job.keeps_result) == (
        "clasper.heartbeat",
        "clasper.periodic",
        False,
    )


async def test_ticks_of_more_beats_double_nothing(slots: Slots, queue: Any) -> None:
    beats = Beats(slots, queue)
    await beats.tick(0)
    for number in range(1, 61):
        ticks = (beats.tick(10 * number + rogue, holder=str(rogue)) for rogue in range(3))
        await asyncio.gather(*ticks)
    await beats.tick(600)
    jobs = [job.job_id for job in queue.jobs]
    assert len(jobs) == len(set(jobs))
    assert {job.arguments["user_id"] for job in queue.jobs} == {one.user_id for one in AGENTS}


async def test_what_was_missed_is_made_good_once_for_each_without_a_spike(
    slots: Slots, queue: Any
) -> None:
    beats = Beats(slots, queue)
    await beats.tick(0)
    assert 20 < await beats.tick(50_000) < 90  # of the last 100 s, a sixth of the interval
    assert await beats.tick(50_000) == 0
    assert await beats.tick(40_000) == 0  # another machine's clock
    assert await beats.tick(0, interval=0) == 0  # switched off
    assert await beats.tick(50_600, interval=30) == 300


async def test_a_standup_comes_once_a_day_on_days_of_23_and_25_hours_too(
    slots: Slots, queue: Any
) -> None:
    beats = Beats(slots, queue)
    agents = [Agent.of({"user_id": "u", "agent_role": "r", "timezone": "Europe/Berlin"})]
    for month, day in ((3, 28), (10, 24)):
        queue.jobs.clear()
        first = datetime(2026, month, day, 12, tzinfo=UTC).timestamp()
        for quarter in range(4 * 24 * 3):
            now = datetime.fromtimestamp(first + quarter * 900, UTC)
            await beats.standups(now, agents)
        slots_ = [job.arguments["slot"] for job in queue.jobs]
        # The first of these ticks makes good what months without one missed.
        assert sorted(set(slots_)) == sorted(slots_)
        assert [f"2026-{month:02}-{day + more}" in slots_ for more in (1, 2, 3)] == [True] * 3


async def test_standups_of_one_hour_are_spread_and_zones_have_their_own(
    slots: Slots, queue: Any
) -> None:
    beats = Beats(slots, queue)
    await beats.standups(datetime(2026, 6, 1, 2, 29, tzinfo=UTC), AGENTS)
    sizes = [
        await beats.standups(datetime(2026, 6, 1, 2, minute, tzinfo=UTC), AGENTS)
        for minute in range(30, 42)
    ]
    assert sum(sizes) == 300
    assert max(sizes) < 60
    assert STANDUP_SPREAD_SECONDS == 600
