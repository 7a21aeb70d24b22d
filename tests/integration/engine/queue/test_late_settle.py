"""What ends while Redis is away, and whose connection nobody makes anew in time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from clasper_worker.celery import TRANSPORT
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from tests.unit.engine.queue.reports import Reports
from tests.unit.engine.queue.turns import Broker
from tests.waiting import until

pytestmark = pytest.mark.integration

DEADLINE = 30.0
LEASE = 1.0


@pytest.fixture
def server() -> Iterator[RunningRedis]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        yield server


@pytest.fixture
def client(server: RunningRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def keeper(client: redis.Redis) -> Iterator[LeaseKeeper]:
    """A living worker's; it also looks for the leases of dead ones."""
    made = LeaseKeeper(
        Schedule(client, ScheduleRules(lease_seconds=LEASE)),
        LEASE,
        on_lost=pytest.fail,  # type: ignore[arg-type]
        on_cancelled=pytest.fail,  # type: ignore[arg-type]
        reporter=Reports(),
    )
    made.start()
    yield made
    made.stop()


def test_a_turn_that_ended_while_redis_was_away_is_settled_before_its_lease_lapses(
    server: RunningRedis, client: redis.Redis, keeper: LeaseKeeper
) -> None:
    broker = Broker(client)
    broker.send("ended")
    broker.send("behind")
    connection = Connection(
        server.url,
        transport=TRANSPORT,
        transport_options={"schedule_rules": {"lease_seconds": LEASE}},
    )
    connection.transport.attach(keeper)
    messages: list[Message] = []
    queue = Queue("clasper", no_declare=True)
    with Consumer(connection.default_channel, [queue], on_message=messages.append):
        connection.drain_events(timeout=DEADLINE)
        (ended,) = messages
        server.kill()
        with pytest.raises(connection.connection_errors):
            ended.ack()
        connection.close()  # and no other is made
    server.restart()

    until(lambda: not keeper.holds(ended.delivery_tag) and client.scard("clasper:running") == 0)
    found = Schedule(client, ScheduleRules(), [("clasper", ["clasper"])]).exchange(free=10)
    (behind,) = found.deliveries
    assert not behind.is_redelivered
    assert b'"behind"' in behind.raw
