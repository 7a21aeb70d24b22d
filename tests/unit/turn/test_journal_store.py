"""The ledger: in memory, and in Redis."""

import asyncio
from collections.abc import AsyncIterator

import fakeredis
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.engine.redis.scripts import State
from clasper_worker.errors import StateUnavailableError
from clasper_worker.turn.journal_store import (
    MemoryLedger,
    RedisLedger,
    TurnLedger,
    ledger_key,
    request_digest,
)
from clasper_worker.turn.models import TurnIdentity
from clasper_worker.turn.request import parse_send_request


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


async def test_the_first_claim_fixes_the_request(ledger: TurnLedger) -> None:
    assert await ledger.claim("t1", "digest") == {"request": "digest"}
    assert await ledger.claim("t1", "other") == {"request": "digest"}
    assert await ledger.claim("t2", "other") == {"request": "other"}


async def test_the_first_writer_wins_and_every_writer_is_told(ledger: TurnLedger) -> None:
    await ledger.claim("t1", "digest")
    assert await ledger.record("t1", [("a", "Hé")], 1.5) == {"a": "Hé"}
    assert await ledger.record("t1", [("a", "other")], 1.0) == {"a": "Hé"}
    assert await ledger.claim("t1", "digest") == {"request": "digest", "a": "Hé", "spent": "1.5"}


async def test_what_follows_from_an_entry_that_lost_is_not_recorded(ledger: TurnLedger) -> None:
    await ledger.record("t1", [("a", "1")], 0)
    lost = [("a", "2"), ("b", "2"), ("c", "2")]
    assert await ledger.record("t1", lost, 0) == {"a": "1"}
    assert await ledger.record("t1", [("a", "1"), ("b", "1")], 0) == {"a": "1", "b": "1"}
    assert await ledger.record("t1", lost, 0) == {"a": "1", "b": "1"}


async def test_a_record_that_is_made_again_stands(ledger: TurnLedger) -> None:
    entries = [("a", "1"), ("b", "2")]
    assert await ledger.record("t1", entries, 0) == dict(entries)
    assert await ledger.record("t1", entries, 0) == dict(entries)


async def test_of_many_at_once_one_wins_for_all(ledger: TurnLedger) -> None:
    written = await asyncio.gather(
        *(ledger.record("t1", [("a", str(n)), ("b", str(n))], n) for n in range(20))
    )
    winner = written[0]["a"]
    assert written == [{"a": winner, "b": winner}] * 20


_names = st.sampled_from(["a", "b", "c"])
_texts = st.sampled_from(["1", "2", ""])
_records = st.tuples(
    st.lists(st.tuples(_names, _texts), max_size=3, unique_by=lambda entry: entry[0]),
    st.integers(0, 9),
)


@given(st.lists(st.one_of(_texts, _records), max_size=12))
async def test_both_ledgers_answer_the_same(
    calls: list[str | tuple[list[tuple[str, str]], int]],
) -> None:
    client = fakeredis.FakeAsyncRedis()
    state = State(client)
    ledgers: list[TurnLedger] = [MemoryLedger(), RedisLedger(state, ttl_seconds=60)]
    for call in calls:
        one, other = (
            [
                await ledger.claim("t", call) if isinstance(call, str)
                else await ledger.record("t", *call)
                for ledger in ledgers
            ]
        )  # fmt: skip
        assert one == other
    await state.aclose()
    await client.aclose()


async def test_turns_are_forgotten_in_the_end_but_not_while_they_go_on() -> None:
    client = fakeredis.FakeAsyncRedis()
    state = State(client)
    ledger = RedisLedger(state, ttl_seconds=60)
    for call in (ledger.claim("t1", "digest"), ledger.record("t1", [("a", "1")], 0)):
        await call
        assert 0 < await client.ttl("clasper:turn:t1") <= 60
        await client.expire("clasper:turn:t1", 5)
    await ledger.record("t1", [("b", "1")], 0)
    assert await client.ttl("clasper:turn:t1") > 5
    await state.aclose()
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


def test_the_key_tells_users_and_turns_apart_and_the_digest_requests() -> None:
    def key(user_id: str, turn_id: str) -> str:
        request = parse_send_request({"user_id": user_id, "message": "Hi"})
        return ledger_key(request, TurnIdentity(turn_id, "job", "trace"))

    assert len({key("a", "1"), key("b", "1"), key("a", "2"), key("1a", "")}) == 4
    one = parse_send_request({"user_id": "a", "message": "Hi"})
    same = parse_send_request({"message": "Hi", "user_id": "a", "stream": True})
    other = parse_send_request({"user_id": "a", "message": "Hi", "metadata": {"x": 1}})
    assert request_digest(one) == request_digest(same) != request_digest(other)
