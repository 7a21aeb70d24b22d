"""Leases while dead letters cannot be reported, over a real Redis."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator

import pytest
import redis

from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis
from clasper_worker.engine.queue.dead_letter_thread import DeadLetterThread
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper, lease_time
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler_types import Burial
from tests.unit.engine.queue.turns import Broker
from tests.waiting import until

pytestmark = pytest.mark.integration

LEASE = 10.0
SECONDS = 120.0


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
def broker(client: redis.Redis) -> Broker:
    made = Broker(client)
    made.rules = ScheduleRules(lease_seconds=LEASE, tenant_concurrency=10_000)
    return made


class HangingBackend:
    """Reports nothing until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.free = threading.Event()
        self.told: list[str] = []

    def report(self, buried: Iterable[Burial]) -> Iterable[Burial]:
        letters = list(buried)
        self.asked.set()
        self.free.wait(SECONDS)
        self.told += [letter.job_id for letter in letters]
        return letters


@pytest.fixture
def backend() -> Iterator[HangingBackend]:
    made = HangingBackend()
    yield made
    made.free.set()


@pytest.fixture
def keeper(broker: Broker, backend: HangingBackend) -> Iterator[LeaseKeeper]:
    schedule = broker.schedule()
    reporter = DeadLetterThread(backend.report, schedule.told, pytest.fail)  # type: ignore[arg-type]
    reporter.start()
    made = LeaseKeeper(
        schedule,
        LEASE,
        on_lost=pytest.fail,
        on_cancelled=pytest.fail,
        reporter=reporter,  # type: ignore[arg-type]
    )
    yield made
    made.stop()
    backend.free.set()
    reporter.close(SECONDS)


def test_2000_leases_are_kept_over_many_lease_times_though_the_result_backend_hangs(
    broker: Broker, client: redis.Redis, keeper: LeaseKeeper, backend: HangingBackend
) -> None:
    for number in range(2000):
        broker.send(f"j{number}", role=f"r{number}")
    keeper.start()
    tokens: list[str] = []
    while len(tokens) < 2000:
        began = lease_time()
        taken = [one.token for one in broker.take(500, intake=500).deliveries]
        keeper.hold(taken, since=began)
        tokens += taken
    broker.push(b"junk that nobody can read")
    broker.send("poison", role="poison")
    broker.schedule().bury(broker.take_one().token, "poison")
    assert backend.asked.wait(SECONDS)
    # Three times over, the keeper has looked for lapsed leases since, and found none.
    for _ in range(3):
        pulse = client.get("clasper:leases:pulse")
        confirmed = dict(keeper._held)
        until(lambda confirmed=confirmed: all(keeper._held[t] > confirmed[t] for t in tokens))  # type: ignore[misc]
        until(lambda pulse=pulse: client.get("clasper:leases:pulse") != pulse)  # type: ignore[misc]
    assert client.scard("clasper:running") == 2000
    assert all(keeper.holds(token) for token in tokens)
    assert backend.told == []
    backend.free.set()
    until(lambda: "poison" in backend.told and client.llen("clasper:untold") == 0)
