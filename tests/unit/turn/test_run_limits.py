"""What is left to do when a turn's time is up."""

from dataclasses import replace
from typing import Any

import pytest

from clasper_worker.errors import LeaseLostError, TurnTimeoutError
from clasper_worker.testing import calls, says
from clasper_worker.turn.journal_store import ledger_key
from clasper_worker.turn.models import TurnIdentity
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TIMED_OUT_TEXT, TurnRun

REQUEST = parse_send_request({"user_id": "u1", "message": "Hello", "task_title": "Thread"})
TURN = TurnIdentity("turn-1", "turn-1", "0" * 32)
KEY = ledger_key(REQUEST, TURN)


async def out_of_time(harness: Any) -> str:
    """A turn that died in its second step, and has no time left; returns its task's id."""
    with pytest.raises(AssertionError, match="scripted model"):
        await harness.run(calls(("list_tasks", {})))
    await harness.deps.ledger.record(KEY, [], 1000)
    harness.deps = replace(
        harness.deps, settings=replace(harness.deps.settings, soft_limit_seconds=300)
    )
    (task,) = [task async for task in harness.backend().tasks()]
    return str(task.id)


async def test_a_resumed_turn_without_time_left_says_so_in_its_task_and_fails(harness: Any) -> None:
    task_id = await out_of_time(harness)
    for _ in range(2):
        with pytest.raises(TurnTimeoutError):
            await TurnRun(REQUEST, TURN, harness.deps).within_limits()
    assert await harness.messages(task_id) == [TIMED_OUT_TEXT]


async def test_a_reply_decided_just_before_the_limit_is_the_one_that_is_posted(
    harness: Any,
) -> None:
    first, _ = await harness.run(says("in time"))
    result = await TurnRun(REQUEST, TURN, harness.deps).within_limits()
    assert result == first


async def test_whoever_lost_the_turn_posts_nothing_at_its_limit_either(harness: Any) -> None:
    class Lost:
        async def confirm(self) -> None:
            raise LeaseLostError("taken over")

    task_id = await out_of_time(harness)
    harness.deps = replace(harness.deps, lease=Lost())
    with pytest.raises(LeaseLostError):
        await TurnRun(REQUEST, TURN, harness.deps).within_limits()
    assert await harness.messages(task_id) == []
