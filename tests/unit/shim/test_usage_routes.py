"""``GET /usage``, over a fake Redis."""

from datetime import UTC, datetime, timedelta

import fakeredis
import httpx2
import pytest

from clasper_worker.engine.redis.scripts import State
from clasper_worker.observability.events import ModelSpend
from clasper_worker.shim.schemas import Usage
from clasper_worker.usage.counters import Spender, count_usage
from tests.unit.shim.shims import caller, shim_app

NOW = datetime.now(UTC)
YESTERDAY = NOW - timedelta(days=1)


@pytest.fixture
async def counted(monkeypatch: pytest.MonkeyPatch) -> httpx2.AsyncClient:
    redis = fakeredis.FakeAsyncRedis()
    monkeypatch.setattr(fakeredis, "FakeAsyncRedis", lambda: redis)
    state = State(redis)
    for job, user, cost, moment in (
        ("a", "u1", 0.25, YESTERDAY),
        ("b", "u1", 0.5, NOW),
        ("c", "u2", None, NOW),
    ):
        spent = ModelSpend("mini", 100, 10, cost, 0 if cost else 1)
        await count_usage(state, Spender(job, user), [spent], moment=moment, ttl_seconds=60)
    await state.aclose()
    return caller(shim_app())


async def test_usage_is_told_of_all_and_of_one_user(counted: httpx2.AsyncClient) -> None:
    told = (await counted.get("/usage")).json()
    since = Usage.model_validate(told).since
    assert datetime.fromisoformat(since).date() == YESTERDAY.date()
    assert told == {
        "requestCount": 3,
        "totalInputTokens": 300,
        "totalOutputTokens": 30,
        "totalTokens": 330,
        "totalCost": 0.75,
        "currency": "USD",
        "unpricedCalls": 1,
        "since": since,
    }
    one = (await counted.get("/usage", params={"user_id": "u1"})).json()
    assert (one["requestCount"], one["totalCost"]) == (2, 0.75)
    other = (await counted.get("/usage", params={"user_id": "u2"})).json()
    assert (other["requestCount"], other["totalCost"]) == (1, None)
    nobody = (await counted.get("/usage", params={"user_id": "u3"})).json()
    assert (nobody["requestCount"], nobody["totalCost"]) == (0, 0)


async def test_usage_is_told_since_a_day(counted: httpx2.AsyncClient) -> None:
    told = (await counted.get("/usage", params={"since": str(NOW.date())})).json()
    assert told["requestCount"] == 2
    assert datetime.fromisoformat(told["since"]).date() == NOW.date()
    assert (await counted.get("/usage", params={"since": "soon"})).status_code == 400


async def test_without_redis_usage_is_a_503(
    counted: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*_: object, **__: object) -> None:
        raise OSError

    monkeypatch.setattr("redis.asyncio.Redis.pipeline", lost)
    answer = await counted.get("/usage")
    assert (answer.status_code, answer.json()["code"]) == (503, "state_unavailable")
