"""The counters: each job once, in exact numbers, over a fake Redis."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta

import fakeredis
import pytest

from clasper_worker.engine.redis.scripts import State
from clasper_worker.observability.events import ModelSpend
from clasper_worker.usage import counters
from clasper_worker.usage.counters import KEPT_DAYS, Spender, Totals, as_told, count_usage
from clasper_worker.usage.report import kept_days, usage_by_day, usage_by_name

# Of today: a key whose time is over would be gone at once.
NOON = datetime.now(UTC).replace(hour=12)
DAY = NOON.date()
DAYS = kept_days(now=NOON)


class Counters:
    def __init__(self, client: fakeredis.FakeAsyncRedis) -> None:
        self.client = client
        self.state = State(client)

    async def count(
        self, spender: Spender, *spent: ModelSpend, moment: datetime = NOON, ttl: int = 600
    ) -> None:
        await count_usage(self.state, spender, spent, moment=moment, ttl_seconds=ttl)

    async def all(self) -> dict[date, Totals]:
        return await usage_by_day(self.client, DAYS)


@pytest.fixture
async def counted() -> AsyncIterator[Counters]:
    made = Counters(fakeredis.FakeAsyncRedis())
    yield made
    await made.state.aclose()
    await made.client.aclose()


def spender(job: str, user: str = "u1", role: str = "writer") -> Spender:
    return Spender(job, user, role, "default")


MINI = ModelSpend("mini", 100, 10, 0.001)
BIG = ModelSpend("big", 50, 5, None, 1)


async def test_a_job_counts_by_day_user_role_workspace_and_model(counted: Counters) -> None:
    await counted.count(spender("a"), MINI, BIG)
    both = Totals(1, 150, 15, 1_000_000, 1)
    assert await counted.all() == {DAY: both}
    for dimension, name in spender("a").dimensions:
        assert await usage_by_day(counted.client, DAYS, dimension, name) == {DAY: both}
        assert await usage_by_name(counted.client, DAYS, dimension) == {name: both}
    assert await usage_by_name(counted.client, DAYS, "model") == {
        "mini": Totals(1, 100, 10, 1_000_000, 0),
        "big": Totals(1, 50, 5, 0, 1),
    }
    assert await usage_by_day(counted.client, DAYS, "user", "u2") == {}


async def test_a_job_that_runs_again_counts_once_and_what_it_used_more_is_added(
    counted: Counters,
) -> None:
    for _ in range(3):
        await counted.count(spender("a"), MINI)
    assert await counted.all() == {DAY: Totals(1, 100, 10, 1_000_000, 0)}
    await counted.count(spender("a"), ModelSpend("mini", 130, 12, 0.0015), BIG)
    assert await counted.all() == {DAY: Totals(1, 180, 17, 1_500_000, 1)}
    await counted.count(spender("a"), ModelSpend("mini", 10, 1, 0.0001))  # of an older run
    assert await counted.all() == {DAY: Totals(1, 180, 17, 1_500_000, 1)}


async def test_the_same_id_of_another_user_is_another_job(counted: Counters) -> None:
    await counted.count(spender("a", "u1"), MINI)
    await counted.count(spender("a", "u2"), MINI)
    assert (await counted.all())[DAY].requests == 2


async def test_what_goes_on_another_day_counts_there(counted: Counters) -> None:
    await counted.count(spender("a"), MINI, moment=NOON - timedelta(days=1))
    await counted.count(spender("a"), ModelSpend("mini", 101, 10, 0.001))
    found = await counted.all()
    assert [found[day].input_tokens for day in sorted(found)] == [100, 1]


async def test_many_at_once_lose_nothing(counted: Counters) -> None:
    jobs = [spender(f"{n}", f"u{n % 7}") for n in range(300)]
    await asyncio.gather(*(counted.count(job, MINI) for job in jobs + jobs))
    assert await counted.all() == {DAY: Totals(300, 30_000, 3_000, 300_000_000, 0)}
    by_user = await usage_by_name(counted.client, DAYS, "user")
    assert sum(one.requests for one in by_user.values()) == 300


async def test_every_key_expires(counted: Counters) -> None:
    await counted.count(spender("a"), MINI, BIG)
    keys = await counted.client.keys("*")
    assert len(keys) == 1 + 4 + 1 + 4 + 1  # all, names, user, role, workspace, models, counted
    day = keys and [key for key in keys if b":counted:" not in key]
    end = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC) + timedelta(days=KEPT_DAYS)
    assert {await counted.client.expiretime(key) for key in day} == {int(end.timestamp())}
    (job,) = set(keys) - set(day)
    assert 0 < await counted.client.ttl(job) <= 600


async def test_names_that_callers_choose_are_bounded(
    counted: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counters, "MAX_NAMES", 2)
    for n in range(5):
        await counted.count(spender(f"{n}", f"u{n}", f"r{n}"), ModelSpend(f"m{n}", 1, 1, None, 1))
    roles = await usage_by_name(counted.client, DAYS, "role")
    assert {name: one.requests for name, one in roles.items()} == {"r0": 1, "r1": 1, "(other)": 3}
    assert set(await usage_by_name(counted.client, DAYS, "model")) == {"m0", "m1", "(other)"}
    assert len(await usage_by_name(counted.client, DAYS, "user")) == 5


def test_a_cost_of_which_nothing_is_known_is_none_and_not_zero() -> None:
    assert as_told(Totals(1, 5, 5, 0, 1))["totalCost"] is None
    assert as_told(Totals())["totalCost"] == 0
    assert as_told(Totals(2, 5, 5, 1_500_000, 1))["totalCost"] == 0.0015


def test_kept_days_end_today_and_begin_where_asked() -> None:
    assert (len(DAYS), DAYS[-1]) == (KEPT_DAYS, DAY)
    assert kept_days(DAY - timedelta(days=1), now=NOON) == DAYS[-2:]
    assert kept_days(DAY + timedelta(days=1), now=NOON) == []
