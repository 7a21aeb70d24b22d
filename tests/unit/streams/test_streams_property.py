"""Whatever becomes of a turn's runs and of its listeners, what these have at the end is right."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clasper_worker.observability.events import TurnEnd, TurnReference
from clasper_worker.streams.writer import StreamWriter
from tests.unit.streams.conftest import Ends, Listener, a_turn, opened_reader, opened_writer

STEPS = {1: "I look it up. ", 2: "Still looking. ", 3: "Here it is."}

Operation = tuple[str, int]
OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(1, 6)),  # the next characters of the step
        st.tuples(st.just("flush"), st.just(0)),
        st.tuples(st.just("step"), st.just(0)),  # the step's reply is recorded
        st.tuples(st.just("retry"), st.just(0)),  # the provider's stream broke
        st.tuples(st.just("die"), st.just(0)),  # with what it has not written
        st.tuples(st.just("freeze"), st.just(0)),  # it goes on writing after its successor began
        st.tuples(st.just("thaw"), st.just(0)),
        st.tuples(st.just("lose"), st.just(0)),  # Redis loses everything
        st.tuples(st.just("cut"), st.integers(1, 4)),  # a listener, after so many events
    ),
    max_size=25,
)


class Turn:
    """A turn whose runs follow a script, as a worker would report them."""

    def __init__(self, writers: list[StreamWriter], *, streamed: bool) -> None:
        self._writers = writers
        self._streamed = streamed
        self._frozen: list[tuple[StreamWriter, TurnReference, int]] = []
        self.step, self._said, self._run = 1, 0, 0
        self.begin()

    def begin(self) -> None:
        """A run begins, and asks for what no reply is recorded of."""
        self._run += 1
        self.writer = self._writers[self._run % len(self._writers)]
        self.turn = a_turn(run=self._run, streamed=self._streamed)
        self.writer.started(self.turn, resumed=self._run > 1, queue_seconds=None)
        self._ask()

    def _ask(self) -> None:
        self._said = 0
        self.writer.model_asked(self.turn, step=self.step)

    def say(self, length: int) -> None:
        """Report more of the step's text."""
        text = STEPS[self.step][self._said : self._said + length]
        if text and self._streamed:
            self._said += len(text)
            self.writer.chunk(self.turn, step=self.step, text=text)

    async def thaw(self) -> None:
        """Those that were frozen go on as if nothing had happened."""
        for writer, turn, step in self._frozen:
            for _ in range(3):
                writer.chunk(turn, step=step, text="(from a frozen worker)")
                await writer.flush(turn)

    async def record(self) -> None:
        """The step's reply is whole."""
        self.say(1000)
        await self.writer.flush(self.turn)
        if self.step < len(STEPS):
            self.step += 1
            self._ask()

    def retry(self) -> None:
        """The step's text starts anew."""
        self._said = 0
        self.writer.retry(self.turn, step=self.step)

    def die(self) -> None:
        """The worker is killed: what it has not written is lost."""
        self.writer._runs.pop((self.turn.job_id, self.turn.run))
        for at, run in list(self.writer._dirty.items()):
            if run.turn is self.turn:
                del self.writer._dirty[at]
        self.begin()

    def freeze(self) -> None:
        """The worker is taken for dead, and thaws when another has gone on."""
        self._frozen.append((self.writer, self.turn, self.step))
        self.begin()

    async def end(self) -> None:
        """The rest of the turn, and its end."""
        while self.step < len(STEPS):
            await self.record()
        self.say(4)
        await self.writer.flush(self.turn)
        await self.thaw()
        await self.record()
        self.writer.ended(self.turn, TurnEnd("ok"))


async def play(url: str, server: redis.Redis, operations: list[Operation], streamed: bool) -> None:
    ends, listener = Ends(), Listener()
    async with (
        opened_writer(url) as one,
        opened_writer(url) as two,
        opened_writer(url) as three,
        opened_reader(url, ends) as here,
        opened_reader(url, ends) as there,
    ):
        readers = [here, there]
        turn = Turn([one, two, three], streamed=streamed)
        watching = Listener()
        watch = asyncio.create_task(watching.listen(here))
        for name, number in operations:
            await act(turn, server, name, number)
            if name == "cut":
                readers.reverse()
                with suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await listener.listen(readers[0], at_most=number)
        await turn.end()
        await ends.succeed("t1", STEPS[3])
        late = Listener()
        async with asyncio.timeout(20):
            await listener.listen(readers[1])
            await late.listen(here)
            await watch
    for consumer in (watching, listener, late):
        assert consumer.last is not None
        assert consumer.text == (STEPS[3] if streamed else None)
        if all(name != "lose" for name, _ in operations):
            ends_of = [one for one in consumer.ids if one.startswith("end-")]
            assert len(ends_of) == 1, "the stream itself is right, without its end's help"


async def act(turn: Turn, server: redis.Redis, name: str, number: int) -> None:
    if name == "write":
        turn.say(number)
        await asyncio.sleep(0.002)
    elif name == "flush":
        await turn.writer.flush(turn.turn)
    elif name == "step":
        await turn.record()
    elif name == "retry":
        turn.retry()
    elif name == "die":
        turn.die()
    elif name == "freeze":
        turn.freeze()
    elif name == "thaw":
        await turn.thaw()
    elif name == "lose":
        await asyncio.to_thread(server.flushall)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations=OPERATIONS, streamed=st.booleans() | st.just(True))
def test_every_listener_has_the_response_in_the_chunks_of_the_last_step(
    redis_server: Any, server: redis.Redis, operations: list[Operation], streamed: bool
) -> None:
    server.flushall()
    asyncio.run(play(redis_server.url, server, operations, streamed))


@pytest.mark.parametrize("cut", range(1, 8))
def test_a_run_that_is_killed_in_mid_stream_is_made_good_for_who_was_cut(
    redis_server: Any, server: redis.Redis, cut: int
) -> None:
    """The sequence that matters most, at each place."""
    server.flushall()
    operations = [("write", 5), ("flush", 0), ("cut", cut), ("die", 0), ("write", 3), ("cut", 1)]
    asyncio.run(play(redis_server.url, server, operations, streamed=True))
