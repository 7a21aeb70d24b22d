"""A real Redis that answers, and refuses; and one that is silent: nothing is lost, all is typed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from urllib.parse import urlsplit

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from clasper_worker.celery import TRANSPORT
from clasper_worker.config.names import QUEUES
from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.engine.redis.scripts import State, StateScript, redis_client, redis_lock
from clasper_worker.errors import StateUnavailableError
from tests.chaos.route import Route
from tests.integration.engine.queue.conftest import Site
from tests.unit.engine.queue.reports import Reports
from tests.waiting import until

pytestmark = pytest.mark.integration

DEADLINE = 30.0
BUSY = """
redis.call('SET', 'running', 1)
local now = redis.call('TIME')
local began = now[1] * 1000000 + now[2]
repeat now = redis.call('TIME') until now[1] * 1000000 + now[2] - began > 600000
"""
COUNT = StateScript("return redis.call('INCR', KEYS[1])")


@contextmanager
def read_only(client: redis.Redis) -> Iterator[None]:
    client.execute_command("REPLICAOF", "127.0.0.1", "1")  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        client.execute_command("REPLICAOF", "NO", "ONE")  # type: ignore[no-untyped-call]


@contextmanager
def full(client: redis.Redis) -> Iterator[None]:
    client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        client.config_set("maxmemory", 0)


@contextmanager
def busy(client: redis.Redis) -> Iterator[None]:
    client.config_set("lua-time-limit", 10)
    pool = client.connection_pool
    other = redis.Redis(
        connection_pool=redis.ConnectionPool(**{**pool.connection_kwargs, "socket_timeout": None})
    )
    script = threading.Thread(target=lambda: other.eval(BUSY, 0))
    script.start()
    until(lambda: _is_busy(client))
    try:
        yield
    finally:
        script.join()
        other.close()


def _is_busy(client: redis.Redis) -> bool:
    try:
        client.ping()
    except redis.ResponseError as exc:
        return str(exc).startswith("BUSY")
    return False


REFUSALS = [read_only, full, busy]
Refusing = Callable[[redis.Redis], AbstractContextManager[None]]


@pytest.fixture
def keeper(site: Site) -> Iterator[LeaseKeeper]:
    made = LeaseKeeper(
        Schedule(site.redis, ScheduleRules(lease_seconds=5.0)),
        5.0,
        on_lost=lambda _: None,
        on_cancelled=lambda _: None,
        reporter=Reports(),
    )
    yield made
    made.stop()


@pytest.fixture
def connection(site: Site, keeper: LeaseKeeper) -> Iterator[Connection]:
    rules = {"schedule_rules": {"lease_seconds": 5.0}}
    made = Connection(site.settings.celery_broker_url, transport=TRANSPORT, transport_options=rules)
    made.transport.attach(keeper)
    yield made
    made.close()


def drain(connection: Connection, messages: list[Message], number: int) -> None:
    deadline = time.monotonic() + DEADLINE
    while len(messages) < number:
        assert time.monotonic() < deadline
        try:
            connection.drain_events(timeout=0.2)
        except connection.connection_errors:
            continue


@pytest.mark.parametrize("refusing", REFUSALS)
def test_a_worker_keeps_what_it_has_to_give_back_and_goes_on_afterwards(
    site: Site, connection: Connection, refusing: Refusing
) -> None:
    site.send("a")
    messages: list[Message] = []
    queue = Queue("clasper", no_declare=True)
    with Consumer(connection.default_channel, [queue], on_message=messages.append):
        drain(connection, messages, 1)
        with refusing(site.redis):
            messages[0].ack()
            with pytest.raises(TimeoutError):
                connection.drain_events(timeout=0.3)
        site.send("b")  # behind it
        drain(connection, messages, 2)
        (running,) = site.redis.smembers("clasper:running")
        assert site.redis.hget(f"clasper:message:{running.decode()}", "j") == b"b"


@pytest.mark.parametrize("refusing", REFUSALS)
def test_what_a_channel_cannot_give_back_as_it_is_closed_the_keeper_gives_back(
    site: Site, connection: Connection, keeper: LeaseKeeper, refusing: Refusing
) -> None:
    for job in ("ended", "shown", "bad"):
        site.send(job, agent_role=job)
    messages: list[Message] = []
    queue = Queue("clasper", no_declare=True)
    with Consumer(connection.default_channel, [queue], on_message=messages.append):
        drain(connection, messages, 3)
        by_job = {message.headers["id"]: message for message in messages}
        with refusing(site.redis):
            by_job["ended"].ack()
            by_job["bad"].reject()
            connection.close()
    assert keeper.held() == ()
    keeper.start()
    until(lambda: site.redis.scard("clasper:running") == 0)
    until(lambda: site.redis.zcard("clasper:dead") == 1)
    (again,) = site.take()
    assert b'"shown"' in again.raw


@pytest.mark.parametrize("refusing", REFUSALS)
def test_no_caller_gets_an_error_that_is_not_ours(site: Site, refusing: Refusing) -> None:
    canceller = Canceller(site.client.app, site.schedule, QUEUES)
    refused: list[Exception] = []
    done = threading.Event()

    def call() -> None:
        for ask in (lambda: canceller.cancel_job("a", wait=0), lambda: site.send("late")):
            try:
                ask()
            except Exception as exc:  # noqa: BLE001 - what it is, is asked below
                refused.append(exc)
        done.set()

    with refusing(site.redis):
        call()
    assert done.is_set()
    assert refused
    assert all(isinstance(error, StateUnavailableError) for error in refused)


def test_enqueuing_waits_for_a_refusal_that_passes(site: Site) -> None:
    with read_only(site.redis):
        sending = threading.Thread(target=site.send, args=("a",))
        sending.start()
        sending.join(0.3)
        assert sending.is_alive()
    sending.join(DEADLINE)
    assert len(site.take()) == 1


@pytest.fixture
def route(site: Site) -> Iterator[Route]:
    url = urlsplit(site.settings.celery_broker_url)
    made = Route(url.hostname or "127.0.0.1", url.port or 6379)
    yield made
    made.close()


async def test_a_silent_connection_of_our_state_is_given_up_and_the_call_made_anew(
    route: Route,
) -> None:
    client = redis_client(f"redis://127.0.0.1:{route.port}/0")
    state = State(client, seconds=60, answer_seconds=0.5)
    assert await state.call(COUNT, ["n"]) == 1
    route.lose()
    assert await asyncio.wait_for(state.call(COUNT, ["n"]), DEADLINE) == 2
    await state.aclose()
    await client.aclose()


async def test_a_lock_is_taken_anew_where_a_connection_fell_silent(
    route: Route, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("clasper_worker.engine.redis.scripts._ANSWER_SECONDS", 0.5)
    client = redis_client(f"redis://127.0.0.1:{route.port}/0")
    lock = redis_lock(client, patience=DEADLINE)
    async with lock("first"):
        pass
    route.lose()
    async with asyncio.timeout(DEADLINE), lock("second"):
        pass
    await client.aclose()
