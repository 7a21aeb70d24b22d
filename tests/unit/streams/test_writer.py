"""What workers write of their turns, on a real Redis."""

import asyncio
import json
from typing import Any

import redis

from clasper_worker.observability.events import TurnEnd
from clasper_worker.streams.keys import job_key, run_key, stream_key
from tests.unit.streams.conftest import a_turn, opened_writer
from tests.waiting import eventually


def entries(server: redis.Redis, turn_id: str = "t1") -> list[list[dict[str, Any]]]:
    found: Any = server.xrange(stream_key(turn_id))
    return [json.loads(fields[b"e"]) for _, fields in found]


def events(server: redis.Redis, turn_id: str = "t1") -> list[dict[str, Any]]:
    return [event for entry in entries(server, turn_id) for event in entry]


def view(told: list[dict[str, Any]]) -> dict[int, str]:
    """The texts of the steps, as a consumer has them that drops what is void."""
    texts: dict[int, str] = {}
    for event in told:
        if event["type"] == "chunk":
            texts[event["step"]] = texts.get(event["step"], "") + event["data"]
        elif event["type"] == "retry":
            texts.pop(event["step"], None)
    return texts


async def begin(writer: Any, turn: Any, *, step: int = 1) -> None:
    writer.started(turn, resumed=False, queue_seconds=None)
    writer.model_asked(turn, step=step)


def test_the_first_text_of_a_step_leaves_at_once_and_more_of_it_together(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn = a_turn()
            await begin(writer, turn)
            writer.chunk(turn, step=1, text="Hel")
            await eventually(lambda: entries(server))
            for text in ("lo", " ", "you", "!"):
                writer.chunk(turn, step=1, text=text)
            await writer.flush(turn)

    asyncio.run(main())
    first, *rest = entries(server)
    assert [event["type"] for event in first] == ["start", "step", "chunk"]
    assert first[-1] == {"type": "chunk", "data": "Hel", "step": 1}
    assert rest == [[{"type": "chunk", "data": "lo you!", "step": 1}]]


def test_many_turns_leave_in_one_call(server: redis.Redis, redis_server: Any) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turns = [a_turn(f"t{number}") for number in range(100)]
            for turn in turns:
                await begin(writer, turn)
                writer.chunk(turn, step=1, text="a")
            before = server.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
            await asyncio.gather(*map(writer.flush, turns))
            calls = server.info("commandstats")["cmdstat_evalsha"]["calls"] - before
            assert calls <= 3

    asyncio.run(main())
    assert all(view(events(server, f"t{number}")) == {1: "a"} for number in range(100))


def test_a_run_that_another_has_followed_adds_nothing(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as frozen, opened_writer(
            redis_server.url
        ) as living:  # fmt: skip
            old, new = a_turn(run=1), a_turn(run=2)
            await begin(frozen, old)
            frozen.chunk(old, step=1, text="from the past")
            await frozen.flush(old)
            await begin(living, new)
            living.chunk(new, step=1, text="Hello")
            await living.flush(new)
            frozen.chunk(old, step=1, text=" again")
            frozen.ended(old, TurnEnd("ok"))
            await frozen.flush(old)
            await frozen.close()
            living.chunk(new, step=1, text=" you")
            await living.flush(new)

    asyncio.run(main())
    told = events(server)
    assert view(told) == {1: "Hello you"}
    assert " again" not in json.dumps(told)
    assert server.hget(run_key("t1"), "e") == b""


def test_a_run_that_goes_on_declares_void_what_it_asks_again_and_nothing_else(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            first, second = a_turn(run=1), a_turn(run=2)
            await begin(writer, first)
            writer.chunk(first, step=1, text="I look.")
            writer.model_asked(first, step=2)
            writer.chunk(first, step=2, text="Half of")
            await writer.flush(first)
            await begin(writer, second, step=2)
            writer.chunk(second, step=2, text="All of it")
            await writer.flush(second)

    asyncio.run(main())
    told = events(server)
    assert view(told) == {1: "I look.", 2: "All of it"}
    assert [event["step"] for event in told if event["type"] == "retry"] == [2]


def test_a_retry_in_one_run_drops_what_came_before_it(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn = a_turn()
            await begin(writer, turn)
            writer.chunk(turn, step=1, text="wro")
            await writer.flush(turn)
            writer.chunk(turn, step=1, text="ng")
            writer.retry(turn, step=1)
            writer.chunk(turn, step=1, text="right")
            await writer.flush(turn)

    asyncio.run(main())
    assert view(events(server)) == {1: "right"}
    assert "ng" not in [event.get("data") for event in events(server)]


def test_a_turn_that_has_ended_well_takes_no_more_events(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn, follower = a_turn(run=1), a_turn(run=2, job_id="j2")
            await begin(writer, turn)
            writer.chunk(turn, step=1, text="done")
            writer.ended(turn, TurnEnd("ok"))
            await writer.close()
        async with opened_writer(redis_server.url) as writer:
            await begin(writer, follower)
            writer.ended(follower, TurnEnd("ok"))
            await writer.close()

    asyncio.run(main())
    assert [event["type"] for event in events(server)] == ["start", "step", "chunk"]
    assert server.ttl(stream_key("t1")) > 3000


def test_a_job_of_a_key_leads_to_its_turn(server: redis.Redis, redis_server: Any) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn = a_turn("t1", job_id="j1")
            await begin(writer, turn)
            await writer.flush(turn)

    asyncio.run(main())
    assert server.get(job_key("j1")) == b"t1"
    assert server.hget(run_key("t1"), "j") == b"j1"


def test_what_redis_lost_is_said_anew(server: redis.Redis, redis_server: Any) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn = a_turn()
            await begin(writer, turn)
            writer.chunk(turn, step=1, text="One, ")
            await writer.flush(turn)
            server.flushall()
            writer.chunk(turn, step=1, text="two, ")
            await writer.flush(turn)
            writer.chunk(turn, step=1, text="three")
            await writer.flush(turn)

    asyncio.run(main())
    told = events(server)
    assert told[0] == {"type": "retry", "step": 1}
    assert view(told) == {1: "One, two, three"}


def test_a_batch_whose_answer_was_lost_is_there_once(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn = a_turn()
            await begin(writer, turn)
            send, calls = writer._state.call, 0  # the boundary to Redis

            async def twice(*args: Any) -> Any:
                nonlocal calls
                calls += 1
                await send(*args)
                return await send(*args)

            writer._state.call = twice  # type: ignore[assignment, method-assign]
            for text in "abc":
                writer.chunk(turn, step=1, text=text)
                await writer.flush(turn)
            assert calls == 3

    asyncio.run(main())
    assert view(events(server)) == {1: "abc"}


def test_text_beyond_a_streams_size_is_left_out(server: redis.Redis, redis_server: Any) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url, most_bytes=1000) as writer:
            turn = a_turn()
            await begin(writer, turn)
            for _ in range(20):
                writer.chunk(turn, step=1, text="x" * 100)
                await writer.flush(turn)

    asyncio.run(main())
    assert 0 < len(view(events(server))[1]) < 1000


def test_half_a_surrogate_pair_is_text_like_any_other(
    server: redis.Redis, redis_server: Any
) -> None:
    async def main() -> None:
        async with opened_writer(redis_server.url) as writer:
            turn = a_turn()
            await begin(writer, turn)
            writer.chunk(turn, step=1, text="a\ud83d")
            await writer.flush(turn)

    asyncio.run(main())
    assert view(events(server)) == {1: "a\ud83d"}
