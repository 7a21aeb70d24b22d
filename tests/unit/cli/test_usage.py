"""``clasper usage``, over a fake Redis."""

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import fakeredis
import pytest
from click.testing import CliRunner

from clasper_worker.cli import usage
from clasper_worker.engine.redis.scripts import State
from clasper_worker.observability.events import ModelSpend
from clasper_worker.usage.counters import Spender, count_usage


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> None:
    server = fakeredis.FakeServer()

    def client(*_: Any) -> fakeredis.FakeAsyncRedis:
        return fakeredis.FakeAsyncRedis(server=server)

    async def count() -> None:
        redis = client()
        state = State(redis)
        for job, user, spent in (
            ("a", "u1", ModelSpend("mini", 1_000, 10, 0.25)),
            ("b", "u2", ModelSpend("house", 2_000, 20, None, 1)),
        ):
            await count_usage(
                state, Spender(job, user), [spent], moment=datetime.now(UTC), ttl_seconds=60
            )
        await state.aclose()
        await redis.aclose()

    monkeypatch.setattr(usage, "redis_client", client)
    asyncio.run(count())


def run(*arguments: str) -> str:
    outcome = CliRunner().invoke(usage.command, arguments, catch_exceptions=False)
    assert outcome.exit_code == 0
    return outcome.output


def test_usage_is_shown_by_day_and_by_name(counted: None) -> None:
    today = str(datetime.now(UTC).date())
    told = json.loads(run("--json"))
    assert (told["requestCount"], told["totalTokens"], told["totalCost"]) == (2, 3_030, 0.25)
    assert [item["day"] for item in told["items"]] == [today]
    by_model = json.loads(run("--by", "model", "--json"))["items"]
    assert [(item["model"], item["totalCost"]) for item in by_model] == [
        ("house", None),
        ("mini", 0.25),
    ]
    assert json.loads(run("--user", "u1", "--json"))["requestCount"] == 1


def test_a_person_sees_what_has_no_known_price(counted: None) -> None:
    lines = run("--by", "model").splitlines()
    assert lines[1].split() == ["house", "1", "2,000", "20", "not", "known"]
    assert lines[-1].split() == ["total", "2", "3,000", "30", "0.2500+"]
    assert run("--since", "2999-01-01").splitlines()[-1].split()[:2] == ["total", "0"]


def test_one_user_is_listed_by_day_alone(counted: None) -> None:
    outcome = CliRunner().invoke(usage.command, ["--user", "u1", "--by", "model"])
    assert outcome.exit_code == 2
