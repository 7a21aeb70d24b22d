"""Following turns on a real Redis, whose writers are real and whose jobs' ends the test says."""

import asyncio
from typing import Any, cast

import pytest
import redis

from clasper_worker.engine.queue.place import Place
from clasper_worker.errors import StateUnavailableError
from clasper_worker.observability.events import TurnEnd
from clasper_worker.streams.feed import Feed
from clasper_worker.streams.results import JobOutcome
from tests.unit.streams.conftest import Ends, Listener, a_turn, opened_reader, opened_writer
from tests.waiting import eventually

pytestmark = pytest.mark.usefixtures("server")


async def told(listener: Listener, count: int) -> None:
    """Wait until the listener has had so many events."""
    await eventually(lambda: len(listener.ids) >= count)


async def write(writer: Any, turn: Any, *texts: str, step: int = 1) -> None:
    writer.started(turn, resumed=turn.run > 1, queue_seconds=None)
    writer.model_asked(turn, step=step)
    for text in texts:
        writer.chunk(turn, step=step, text=text)
        await writer.flush(turn)


def test_each_of_many_listeners_gets_each_event_once_and_the_end(redis_server: Any) -> None:
    async def main() -> None:
        ends = Ends()
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends) as reader,
        ):
            turns = [a_turn(f"t{number}") for number in range(20)]
            listeners = [Listener(turn.turn_id) for turn in turns for _ in range(5)]
            tasks = [asyncio.create_task(one.listen(reader)) for one in listeners]
            await asyncio.gather(*(write(writer, turn, "a", "b", "c") for turn in turns))
            for turn in turns:
                writer.ended(turn, TurnEnd("ok"))
                await ends.succeed(turn.job_id, "abc")
            async with asyncio.timeout(20):
                await asyncio.gather(*tasks)
            for one in listeners:
                assert (one.text, one.types[-1]) == ("abc", "done")
                assert "retry" not in one.types

    asyncio.run(main())


def test_one_read_serves_all_turns(redis_server: Any, server: redis.Redis) -> None:
    async def main() -> None:
        ends = Ends()
        async with opened_reader(redis_server.url, ends) as reader:
            tasks = [
                asyncio.create_task(Listener(f"t{number}").listen(reader)) for number in range(50)
            ]
            await eventually(lambda: _blocked(server))
            assert await asyncio.to_thread(_blocked, server) == 1
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def _blocked(server: redis.Redis) -> int:
    return int(server.info("clients")["blocked_clients"])


def test_a_listener_goes_on_from_any_event_in_any_process(redis_server: Any) -> None:
    async def main() -> None:
        ends = Ends()
        url = redis_server.url
        async with opened_writer(url) as writer, opened_reader(url, ends) as one:
            turn = a_turn()
            await write(writer, turn, "a", "b", "c")
            writer.ended(turn, TurnEnd("ok"))
            await ends.succeed("t1", "abc")
            whole = Listener()
            await whole.listen(one)
            async with opened_reader(url, ends) as other:
                for cut in range(1, len(whole.ids)):
                    listener = Listener()
                    await listener.listen(one, at_most=cut)
                    await listener.listen(other)
                    assert (listener.ids, listener.text) == (whole.ids, "abc")

    asyncio.run(main())


def test_a_listener_that_comes_first_hears_at_once_of_a_turn_that_comes_later(
    redis_server: Any, server: redis.Redis
) -> None:
    async def main() -> None:
        ends = Ends()
        url = redis_server.url
        async with opened_writer(url) as writer, opened_reader(url, ends) as reader:
            first, late = Listener("t1"), Listener("t2")
            tasks = [asyncio.create_task(first.listen(reader))]
            await eventually(lambda: _blocked(server))  # for the first turn alone
            tasks.append(asyncio.create_task(late.listen(reader)))
            await write(writer, a_turn("t2"), "x")
            await told(late, 3)
            assert late.text == "x"
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())


def test_after_a_stream_has_expired_the_end_comes_from_the_result(
    redis_server: Any, server: redis.Redis
) -> None:
    async def main() -> None:
        ends = Ends()
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends) as reader,
        ):
            await write(writer, a_turn(), "a")
            await ends.succeed("t1", "a")
            await asyncio.to_thread(server.flushall)
            listener = Listener()
            await listener.listen(reader)
            assert (listener.types, listener.last) == (["done"], {"type": "done", "response": "a"})

    asyncio.run(main())


def test_a_job_that_no_worker_ended_ends_its_stream(redis_server: Any) -> None:
    async def main() -> None:
        ends = Ends()
        async with opened_reader(redis_server.url, ends) as reader:
            listener = Listener()
            task = asyncio.create_task(listener.listen(reader))
            error = {"error": "E", "code": "dead_letter", "details": {}}
            await ends.say("t1", JobOutcome("FAILURE", error=error))
            async with asyncio.timeout(10):
                await task
            assert listener.last is not None
            assert (listener.last["type"], listener.last["code"]) == ("error", "dead_letter")

    asyncio.run(main())


def test_a_redis_that_lost_everything_leaves_a_listener_with_the_right_text(
    redis_server: Any, server: redis.Redis
) -> None:
    async def main() -> None:
        ends = Ends()
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends) as reader,
        ):
            turn, listener = a_turn(), Listener()
            task = asyncio.create_task(listener.listen(reader))
            await write(writer, turn, "One, ")
            await told(listener, 3)
            await asyncio.to_thread(server.flushall)
            for text in ("two, ", "three"):
                writer.chunk(turn, step=1, text=text)
                await writer.flush(turn)
            writer.ended(turn, TurnEnd("ok"))
            await ends.succeed("t1", "One, two, three")
            async with asyncio.timeout(10):
                await task
            assert listener.text == "One, two, three"

    asyncio.run(main())


def test_who_is_far_behind_reads_from_redis_what_is_not_kept_here(
    redis_server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Feed.__init__, "__kwdefaults__",
                        {"kept_bytes": 300})  # fmt: skip

    async def main() -> None:
        ends = Ends()
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends) as reader,
        ):
            quick, slow = Listener(), Listener()
            await write(writer, a_turn(), "0")
            await slow.listen(reader, at_most=2)
            task = asyncio.create_task(quick.listen(reader))
            for number in range(1, 300):
                writer.chunk(a_turn(), step=1, text=f" {number}")
                await writer.flush(a_turn())
            await ends.succeed("t1", " ".join(map(str, range(300))))
            await task
            await slow.listen(reader)
            assert slow.text == quick.text == " ".join(map(str, range(300)))
            assert slow.types.count("retry") == 0

    asyncio.run(main())


def test_a_sign_of_life_comes_at_once_and_now_and_then(redis_server: Any) -> None:
    async def main() -> None:
        async with opened_reader(redis_server.url, Ends(), comment_seconds=0.02) as reader:
            signs = 0
            async for batch in reader.follow("t1", "t1").batches():
                assert batch == ()
                signs += 1
                if signs == 3:
                    break

    asyncio.run(main())


def test_a_stop_ends_listeners_without_a_last_event(redis_server: Any) -> None:
    async def main() -> None:
        ends = Ends()
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends) as reader,
        ):
            listener = Listener()
            task = asyncio.create_task(listener.listen(reader))
            await write(writer, a_turn(), "a")
            await told(listener, 3)
            reader.stop()
            await task
            assert listener.last is None

    asyncio.run(main())


class _Away:
    async def find(self, _: str) -> Place | None:
        raise StateUnavailableError("Redis does not answer")

    def close(self) -> None:
        pass


def test_a_job_whose_place_cannot_be_asked_for_is_not_taken_for_unknown(redis_server: Any) -> None:
    async def main() -> None:
        places: Any = _Away()
        async with opened_reader(redis_server.url, Ends(), places=places) as reader:
            with pytest.raises(StateUnavailableError):
                await reader.turn_of("job")

    asyncio.run(main())


def test_a_listener_hears_all_although_its_jobs_place_cannot_be_asked_for(
    redis_server: Any,
) -> None:
    async def main() -> None:
        ends, places, listener = Ends(), cast("Any", _Away()), Listener()
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends, places=places) as reader,
        ):
            task = asyncio.create_task(listener.listen(reader))
            await write(writer, a_turn(), "a")
            await told(listener, 3)
            writer.ended(a_turn(), TurnEnd("ok"))
            await ends.succeed(a_turn().job_id, "a")
            async with asyncio.timeout(10):
                await task
            assert listener.last is not None

    asyncio.run(main())


class _Places:
    def __init__(self, *places: Place | None) -> None:
        self._places = list(places)

    async def find(self, _: str) -> Place | None:
        return self._places.pop(0) if len(self._places) > 1 else self._places[0]

    def close(self) -> None:
        pass


def test_a_listener_hears_what_its_job_waits_for_and_of_which_turn_it_is(
    redis_server: Any,
) -> None:
    async def main() -> None:
        ends = Ends()
        places: Any = _Places(None, Place("turn", "session", 2))
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, ends, places=places) as reader,
        ):
            found: list[dict[str, Any]] = []

            async def listen() -> None:
                async for batch in reader.follow("job", None).batches():
                    found.extend(event.data for event in batch)

            task = asyncio.create_task(listen())
            await eventually(lambda: found)
            await write(writer, a_turn("turn", job_id="job"), "a")
            writer.ended(a_turn("turn", job_id="job"), TurnEnd("ok"))
            await ends.succeed("job", "a")
            async with asyncio.timeout(10):
                await task
            assert found[0] == {"type": "queued", "job_id": "job", "reason": "session", "ahead": 2}
            assert [one["type"] for one in found[1:]] == ["start", "step", "chunk", "done"]

    asyncio.run(main())


def test_a_job_is_found_by_its_own_id_and_by_its_turns(redis_server: Any) -> None:
    async def main() -> None:
        async with (
            opened_writer(redis_server.url) as writer,
            opened_reader(redis_server.url, Ends()) as reader,
        ):
            await write(writer, a_turn("turn", job_id="job"), "a")
            assert await reader.turn_of("job") == ("job", "turn")
            assert await reader.turn_of("turn") == ("job", "turn")
            assert await reader.turn_of("other") is None

    asyncio.run(main())
