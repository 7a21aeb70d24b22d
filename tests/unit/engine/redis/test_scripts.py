"""Our own state: calls that share round trips, each with its own answer."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import fakeredis
import pytest

from clasper_worker.engine.redis.scripts import State, StateScript, redis_client
from clasper_worker.errors import ConfigurationError, StateUnavailableError

ADD = StateScript("return redis.call('INCRBY', KEYS[1], ARGV[1])")
ECHO = StateScript("return {KEYS[1], ARGV[1]}")
BROKEN = StateScript("return redis.call('HGET', KEYS[1])")


class WatchedConnection:
    """One of redis-py's connections: counts its round trips, and can hold them up."""

    def __init__(self, connection: Any, trips: "RoundTrips") -> None:
        self._connection = connection
        self._trips = trips

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def pack_commands(self, commands: list[object]) -> Any:
        self._trips.sizes.append(len(commands))
        return self._connection.pack_commands(commands)

    async def send_packed_command(self, packed: Any, **options: Any) -> None:
        self._trips.begun.set()
        await self._trips.open.wait()
        await self._connection.send_packed_command(packed, **options)


class RoundTrips:
    """A Redis client, of which a `State` only uses the connection pool, and its round trips."""

    def __init__(self, client: fakeredis.FakeAsyncRedis) -> None:
        self._pool = client.connection_pool
        self.sizes: list[int] = []
        self.connections = 0
        self.begun = asyncio.Event()
        self.open = asyncio.Event()
        self.open.set()
        self.connection_pool = self

    async def get_connection(self) -> WatchedConnection:
        self.connections += 1
        return WatchedConnection(await self._pool.get_connection(), self)

    async def release(self, connection: WatchedConnection) -> None:
        await self._pool.release(connection._connection)


@pytest.fixture
async def client() -> AsyncIterator[fakeredis.FakeAsyncRedis]:
    client = fakeredis.FakeAsyncRedis()
    yield client
    await client.aclose()


@pytest.fixture
async def trips(client: fakeredis.FakeAsyncRedis) -> RoundTrips:
    return RoundTrips(client)


@pytest.fixture
async def state(trips: RoundTrips) -> AsyncIterator[State]:
    state = State(cast("Any", trips))
    yield state
    await state.aclose()


async def test_a_script_gets_its_keys_and_arguments_and_its_answer_comes_back(state: State) -> None:
    assert await state.call(ECHO, ["key"], ["é"]) == [b"key", "é".encode()]
    assert await state.call(ADD, ["n"], [2]) == 2
    assert await state.call(ADD, ["n"], [3]) == 5


async def test_calls_of_one_moment_share_a_round_trip(state: State, trips: RoundTrips) -> None:
    answers = await asyncio.gather(*(state.call(ECHO, [f"k{n}"], [n]) for n in range(50)))
    assert answers == [[b"k%d" % n, b"%d" % n] for n in range(50)]
    assert trips.sizes == [50, 50]  # unknown to Redis at first: sent again with its source
    await asyncio.gather(*(state.call(ECHO, ["k"], [n]) for n in range(50)))
    assert trips.sizes[2:] == [50]


async def test_calls_that_come_meanwhile_wait_for_the_next_of_two_round_trips(
    state: State, trips: RoundTrips
) -> None:
    await state.call(ADD, ["n"], [0])
    trips.sizes.clear()
    trips.open.clear()
    calls = []
    for _ in range(10):
        calls.append(asyncio.ensure_future(state.call(ADD, ["n"], [1])))
        for _ in range(5):
            await asyncio.sleep(0)
    assert trips.sizes == [1, 1]
    trips.open.set()
    assert sorted(await asyncio.gather(*calls)) == list(range(1, 11))
    assert trips.sizes == [1, 1, 8]
    assert trips.connections == 2


async def test_more_calls_than_a_round_trip_takes_all_get_their_answers(state: State) -> None:
    answers = await asyncio.gather(*(state.call(ECHO, ["k"], [n]) for n in range(2500)))
    assert [int(answer[1]) for answer in answers] == list(range(2500))


async def test_a_script_that_fails_fails_alone_and_its_error_quotes_nothing(state: State) -> None:
    good, bad, other = await asyncio.gather(
        state.call(ADD, ["n"], [1]),
        state.call(BROKEN, ["secret-key"]),
        state.call(ADD, ["n"], [1]),
        return_exceptions=True,
    )
    assert (good, other) == (1, 2)  # type: ignore[has-type]
    assert isinstance(bad, StateUnavailableError)  # type: ignore[has-type]
    assert "secret-key" not in repr(bad)  # type: ignore[has-type]
    assert await state.call(ADD, ["n"], [1]) == 3


async def test_a_text_that_is_none_fails_alone(state: State) -> None:
    good, bad = await asyncio.gather(
        state.call(ADD, ["n"], [1]), state.call(ECHO, ["k"], ["\ud800"]), return_exceptions=True
    )
    assert good == 1  # type: ignore[has-type]
    assert isinstance(bad, UnicodeEncodeError)  # type: ignore[has-type]


async def test_a_cancelled_caller_leaves_at_once_and_its_batch_goes_on(
    state: State, trips: RoundTrips
) -> None:
    trips.open.clear()
    first = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    second = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    await trips.begun.wait()
    first.cancel()
    await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert first.cancelled()
    assert not second.done()
    trips.open.set()
    assert await second == 2
    assert await state.call(ADD, ["n"], [1]) == 3


async def test_a_call_cancelled_before_it_left_is_not_made(state: State) -> None:
    call = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    other = asyncio.ensure_future(state.call(ADD, ["m"], [1]))
    await asyncio.sleep(0)
    call.cancel()
    await asyncio.gather(other, return_exceptions=True)
    assert await state.call(ADD, ["n"], [0]) == 0


async def test_redis_that_is_away_fails_every_waiting_call_in_bounded_time() -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    client = fakeredis.FakeAsyncRedis(server=server)
    state = State(client, seconds=0.2)
    failures = await asyncio.gather(
        *(state.call(ADD, ["n"], [1]) for _ in range(1500)), return_exceptions=True
    )
    assert {type(failure) for failure in failures} == {StateUnavailableError}
    assert "CLASPER_REDIS_URL" in str(failures[0])
    server.connected = True
    assert await state.call(ADD, ["n"], [1]) == 1
    await state.aclose()
    await client.aclose()


async def test_redis_that_comes_back_in_time_is_waited_for() -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    client = fakeredis.FakeAsyncRedis(server=server)
    state = State(client, seconds=30)
    call = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not call.done()
    server.connected = True
    assert await call == 1
    await state.aclose()
    await client.aclose()


REFUSALS = [
    "OOM command not allowed when used memory > 'maxmemory'.",
    "ERR Error running script: @user_script: 2: -OOM command not allowed when used memory",
    "MISCONF Redis is configured to save RDB snapshots",
]


@pytest.mark.parametrize("text", REFUSALS)
async def test_a_redis_that_is_full_is_waited_for(
    client: fakeredis.FakeAsyncRedis, text: str
) -> None:
    state = State(client, seconds=30)
    refuse = StateScript(
        f"if redis.call('GET', KEYS[1]) then return 1 end return redis.error_reply([[{text}]])"
    )
    good = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    refused = asyncio.ensure_future(state.call(refuse, ["room"]))
    assert await good == 1  # what it takes does not wait for what it refuses
    assert not refused.done()
    await client.set("room", 1)
    assert await refused == 1
    await state.aclose()


async def test_a_redis_that_stays_full_is_named_as_what_it_is(
    client: fakeredis.FakeAsyncRedis,
) -> None:
    state = State(client, seconds=0.2)
    refuse = StateScript(f"return redis.error_reply([[{REFUSALS[0]}]])")
    with pytest.raises(StateUnavailableError, match="look at its memory"):
        await state.call(refuse, ["key"])
    await state.aclose()


async def test_closing_fails_what_waits(state: State, trips: RoundTrips) -> None:
    trips.open.clear()
    under_way = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    await trips.begun.wait()
    waiting = asyncio.ensure_future(state.call(ADD, ["n"], [1]))
    await asyncio.sleep(0)
    await state.aclose()
    for call in (under_way, waiting):
        with pytest.raises(StateUnavailableError):
            await call


async def test_no_command_of_ours_runs_under_a_socket_timeout() -> None:
    client = redis_client("redis://localhost:6379/0")
    assert client.connection_pool.connection_kwargs["socket_timeout"] is None


def test_an_address_that_is_not_of_redis_is_named() -> None:
    with pytest.raises(ConfigurationError, match="CLASPER_REDIS_URL"):
        redis_client("http://localhost")
