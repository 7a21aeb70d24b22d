"""The ledger: in memory, and in Redis."""

from collections.abc import AsyncIterator

import fakeredis
import pytest

from clasper_worker.errors import StateUnavailableError, TurnConflictError
from clasper_worker.llm.cost import Cost, Usage
from clasper_worker.state import State
from clasper_worker.turn.identity import TurnIdentity
from clasper_worker.turn.ledger import (
    MemoryLedger,
    Outcome,
    RedisLedger,
    TurnLedger,
    ledger_key,
    request_digest,
)
from clasper_worker.turn.request import parse_send_request

COST = Cost(model="m", inputTokens=1, outputTokens=1, inputCost=0.5, outputCost=None, totalCost=1)
REPLY = Outcome(kind="reply", task_id="t", text="Hé", usage=Usage(total_tokens=3), cost=COST)
TIMED_OUT = Outcome(kind="timed_out", task_id="t", text="late")


@pytest.fixture(params=["memory", "redis"])
async def ledger(request: pytest.FixtureRequest) -> AsyncIterator[TurnLedger]:
    if request.param == "memory":
        yield MemoryLedger()
        return
    client = fakeredis.FakeAsyncRedis()
    state = State(client)
    yield RedisLedger(state, ttl_seconds=60)
    await state.aclose()
    await client.aclose()


async def test_a_new_turn_has_no_outcome_and_may_be_claimed_again(ledger: TurnLedger) -> None:
    assert await ledger.claim("t1", "digest") is None
    assert await ledger.claim("t1", "digest") is None


async def test_another_request_under_the_same_turn_is_a_conflict(ledger: TurnLedger) -> None:
    await ledger.claim("t1", "digest")
    with pytest.raises(TurnConflictError):
        await ledger.claim("t1", "other")
    assert await ledger.claim("t2", "other") is None


async def test_the_first_outcome_stays_and_is_what_everybody_gets(ledger: TurnLedger) -> None:
    await ledger.claim("t1", "digest")
    assert await ledger.decide("t1", REPLY) == REPLY
    assert await ledger.decide("t1", TIMED_OUT) == REPLY
    assert await ledger.claim("t1", "digest") == REPLY


async def test_turns_are_forgotten_in_the_end() -> None:
    client = fakeredis.FakeAsyncRedis()
    state = State(client)
    await RedisLedger(state, ttl_seconds=60).claim("t1", "digest")
    await state.aclose()
    assert 0 < await client.ttl("clasper:turn:t1") <= 60
    await client.aclose()


async def test_redis_that_does_not_answer_is_named() -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    client = fakeredis.FakeAsyncRedis(server=server)
    state = State(client, seconds=0.05)
    with pytest.raises(StateUnavailableError, match="CLASPER_REDIS_URL"):
        await RedisLedger(state, ttl_seconds=60).claim("t1", "digest")
    await state.aclose()
    await client.aclose()


def test_an_outcomes_repr_does_not_show_its_text() -> None:
    assert "late" not in repr(TIMED_OUT)


def test_the_key_tells_users_and_turns_apart_and_the_digest_requests() -> None:
    def key(user_id: str, turn_id: str) -> str:
        request = parse_send_request({"user_id": user_id, "message": "Hi"})
        return ledger_key(request, TurnIdentity(turn_id, "job", "trace"))

    assert len({key("a", "1"), key("b", "1"), key("a", "2"), key("1a", "")}) == 4
    one = parse_send_request({"user_id": "a", "message": "Hi"})
    same = parse_send_request({"message": "Hi", "user_id": "a", "stream": True})
    other = parse_send_request({"user_id": "a", "message": "Hi", "metadata": {"x": 1}})
    assert request_digest(one) == request_digest(same) != request_digest(other)
