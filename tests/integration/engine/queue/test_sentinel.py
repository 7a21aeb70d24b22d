"""A real worker on a Redis behind a real Sentinel, over a failover."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery
from celery.states import READY_STATES
from redbeat.schedulers import get_redis

from clasper_worker.celery import celery_configuration
from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.probes import check_broker
from clasper_worker.devkit.local_stack.redis_binary import RedisBinary
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.redis.connections import (
    SentinelMaster,
    blocking_client,
    options_for_celery,
)
from clasper_worker.engine.redis.scripts import State, StateScript, redis_client
from clasper_worker.errors import StateUnavailableError
from tests.chaos.workers import Nursery
from tests.integration.turn.conftest import Processes, free_port, run_processes
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

QUICK = {"socket_timeout": 5, "socket_connect_timeout": 2}


@dataclass
class Pair:
    """A master, its replica, and the port of the Sentinel that watches them."""

    master: RunningRedis
    replica: RunningRedis
    port: int


@contextmanager
def sentinel(binary: RedisBinary, master: RunningRedis, folder: Path) -> Iterator[int]:
    port = free_port()
    config = folder / "sentinel.conf"  # it writes there what it finds out
    config.write_text(
        f"port {port}\nbind 127.0.0.1\ndir {folder}\n"
        f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
        "sentinel down-after-milliseconds main 1000\nsentinel failover-timeout main 3000\n"
    )
    with (folder / "sentinel.log").open("wb") as log:
        process = subprocess.Popen([binary.path, str(config), "--sentinel"], stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    binary = find_redis()
    if binary is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as master, start_redis() as replica:
        with redis.Redis(port=replica.port) as client:
            client.replicaof("127.0.0.1", master.port)
            until(lambda: client.info("replication")["master_link_status"] == "up", "it follows")
        with sentinel(binary, master, tmp_path) as port:
            with redis.Redis(port=port) as watcher:
                known = lambda: watcher.sentinel_masters()["main"]["num-slaves"]  # noqa: E731
                until(lambda: answers(known), "the Sentinel knows both")
            yield Pair(master, replica, port)


def answers(ask: Callable[[], Any]) -> bool:
    try:
        return bool(ask())
    except redis.RedisError:
        return False


@pytest.fixture
def site(pair: Pair, settings_of: Callable[..., Settings]) -> Settings:
    # The first of them is not there.
    url = f"sentinel://127.0.0.1:{free_port()}/0;sentinel://127.0.0.1:{pair.port}/0"
    return settings_of(celery_broker_url=url, clasper_sentinel_master="main")


@pytest.fixture
def processes(site: Settings, tmp_path: Path, nursery: Nursery) -> Iterator[Processes]:
    url = site.celery_broker_url
    for found in run_processes(tmp_path, nursery):
        # A customer's own Celery app, as Celery documents it for Sentinel.
        app = Celery("my_backend", broker=url, backend=url, set_as_current=False)
        options = options_for_celery(url, site)
        app.conf.broker_transport_options = app.conf.result_backend_transport_options = options
        environment = {**found.environment, "CELERY_BROKER_URL": url}
        environment |= {"CLASPER_SENTINEL_MASTER": "main", "CLASPER_VISIBILITY_TIMEOUT_SEC": "2"}
        yield replace(found, app=app, environment=environment)
        app.close()


def state_of(client: ClasperClient, job: str) -> str:
    return str(client.app.backend.get_task_meta(job, cache=False)["status"])


def completes(client: ClasperClient, job: str) -> None:
    """Send a turn, and wait for its result, whatever does not answer meanwhile."""
    request = {"user_id": "u1", "agent_role": "r", "task_title": "T", "message": "Hello"}

    def is_sent() -> bool:
        try:
            client.send(request, job_id=job)
        except StateUnavailableError:
            return False
        return True

    until(is_sent, f"{job} is sent")
    until(lambda: answers(lambda: state_of(client, job) in READY_STATES), f"{job} ends")
    assert state_of(client, job) == "SUCCESS"


def ticks(settings: Settings) -> int:
    """How often the scheduler has chosen a message."""
    with blocking_client(settings.redis_url, settings, **QUICK) as client:
        return int(client.get("clasper:tick") or 0)


def test_beat_keeps_its_schedule_with_the_master(pair: Pair, site: Settings) -> None:
    with Celery("beat", set_as_current=False) as beat:
        beat.conf.update(celery_configuration(site))
        get_redis(beat).set("clasper:redbeat:x", "kept")
    with redis.Redis(port=pair.master.port) as client:
        assert client.get("clasper:redbeat:x") == b"kept"


def test_a_reachable_broker_passes_the_check_of_the_local_stack(pair: Pair, site: Settings) -> None:
    check_broker(site.celery_broker_url, site)


async def test_a_call_of_our_own_state_waits_for_the_new_master(pair: Pair, site: Settings) -> None:
    script = StateScript("redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])")
    async with redis_client(site.redis_url, site) as client:
        state = State(client, seconds=60.0)
        assert await state.call(script, ["key"], ["before"]) == b"before"
        pair.master.kill()
        assert await state.call(script, ["key"], ["after"]) == b"after"
        await state.aclose()
    with redis.Redis(port=pair.replica.port) as follower:
        assert follower.get("key") == b"after"


async def test_turns_go_through_the_scheduler_before_and_after_a_failover(
    pair: Pair, site: Settings, processes: Processes
) -> None:
    master = SentinelMaster.of(site.redis_url, site)
    assert master is not None
    assert await master.find() == ("127.0.0.1", pair.master.port)
    async with redis_client(site.redis_url, site) as state:
        await state.set("before", "kept")
        fail_over_between_turns(pair, site, processes)
        assert await master.find() == ("127.0.0.1", pair.replica.port)
        assert await state.get("before") == b"kept"


def fail_over_between_turns(pair: Pair, site: Settings, processes: Processes) -> None:
    client = ClasperClient.from_settings(site)
    with processes.worker("worker"):
        completes(client, "one")
        chosen = ticks(site)
        assert chosen > 0
        with redis.Redis(port=pair.master.port) as written:
            assert written.wait(1, 10_000) == 1
        pair.master.kill()
        with redis.Redis(port=pair.replica.port) as follower:
            until(lambda: follower.info("replication")["role"] == "master", "it takes over")
        completes(client, "two")
        assert ticks(site) > chosen
        schedule = open_schedule(site)
        assert schedule is not None
        until(lambda: answers(lambda: not schedule.client.scard("clasper:running")), "settled")
        schedule.close()
    client.close()
