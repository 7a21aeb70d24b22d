"""The recorder: beside the turns, whatever Redis does."""

import asyncio
from collections.abc import Sequence
from typing import Any

import fakeredis
import pytest

from clasper_worker.engine.redis.scripts import State
from clasper_worker.errors import StateUnavailableError
from clasper_worker.llm.messages import ChatMessage, ModelReply, TokenUsage
from clasper_worker.observability.events import ModelSpend, TurnEnd, TurnReference
from clasper_worker.usage import recorder as module
from clasper_worker.usage.counters import Spender, count_usage
from clasper_worker.usage.recorder import UsageRecorder
from clasper_worker.usage.report import kept_days, usage_by_day, usage_by_name
from tests.waiting import eventually

SPENT = (ModelSpend("mini", 100, 10, 0.001),)
TURN = TurnReference("t1", "j1", "0" * 32, "u1", "user:u1:writer", "writer")


class World:
    def __init__(self) -> None:
        self.redis = fakeredis.FakeAsyncRedis()
        self.recorder = UsageRecorder(
            State(self.redis), ttl_seconds=60, workspace=lambda asked, user: asked or f"of-{user}"
        )

    async def requests(self) -> int:
        found = await usage_by_day(self.redis, kept_days())
        return sum(one.requests for one in found.values())


@pytest.fixture
def world() -> World:
    return World()


async def test_a_turn_counts_once_however_many_of_its_runs_and_followers_end(world: World) -> None:
    for _ in range(3):
        world.recorder.ended(TURN, TurnEnd("ok", spent=SPENT))
    await world.recorder.close()
    assert await world.requests() == 1
    assert list(await usage_by_name(world.redis, kept_days(), "workspace")) == ["of-u1"]


@pytest.mark.parametrize("outcome", ["failed", "timed_out", "cancelled"])
async def test_what_a_turn_used_counts_however_it_ends(world: World, outcome: Any) -> None:
    world.recorder.ended(TURN, TurnEnd(outcome, spent=SPENT))
    await world.recorder.close()
    assert await world.requests() == 1


async def test_a_run_that_lost_its_turn_leaves_the_count_to_the_other(world: World) -> None:
    world.recorder.ended(TURN, TurnEnd("lost", spent=SPENT))
    world.recorder.ended(TURN, TurnEnd("failed"))  # without any answer of a model
    await world.recorder.close()
    assert await world.requests() == 0


async def test_counts_wait_while_redis_is_away_and_are_bounded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = count_usage
    away = True

    async def refuse(*args: Any, **options: Any) -> None:
        if away:
            raise StateUnavailableError("away")
        await written(*args, **options)

    monkeypatch.setattr(module, "count_usage", refuse)
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(module, "_MAX_PENDING", 2)
    for n in range(3):
        world.recorder.count(Spender(f"j{n}"), SPENT)
    await asyncio.sleep(0)
    away = False
    await eventually(lambda: not world.recorder._pending)
    assert await world.requests() == 2


async def test_what_the_end_of_the_loop_cuts_off_is_written_at_the_close(world: World) -> None:
    world.recorder.count(Spender("j1"), SPENT)
    for task in tuple(world.recorder._pending):
        task.cancel()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await world.recorder.close()
    assert await world.requests() == 1


class Model:
    async def complete(
        self, messages: Sequence[ChatMessage], tools: Any = (), **options: Any
    ) -> ModelReply:
        return ModelReply("Hi", (), TokenUsage(100, 10), "openai", "gpt-4o-mini")


async def test_a_metered_job_counts_what_it_asked_also_where_it_fails(world: World) -> None:
    async def ask_twice_and_fail() -> None:
        with world.recorder.metered(Spender("j1", "u1")) as meter:
            model = meter.of(Model())
            await model.complete([])
            await model.complete([])
            raise ValueError("no luck")

    with pytest.raises(ValueError, match="no luck"):
        await ask_twice_and_fail()
    await world.recorder.close()
    ((day, found),) = (await usage_by_day(world.redis, kept_days())).items()
    assert (found.requests, found.input_tokens, found.output_tokens) == (1, 200, 20)
    assert found.cost_nano_usd == 42_000
    assert day == kept_days()[-1]
