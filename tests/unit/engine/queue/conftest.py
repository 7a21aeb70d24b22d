"""A scheduler over a real Redis server, and over the one that stands in where there is none.

A test that is marked ``every_server`` also runs on each further version that this machine has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache

import fakeredis
import pytest
import redis

from clasper_worker.devkit.local_stack.fake_redis import complete_scripting
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, start_redis
from tests.redis_servers import other_servers, server_of
from tests.unit.engine.queue.turns import Broker


@pytest.fixture
def redis_client(redis_server: RunningRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "client" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("every_server")
        servers = ["redis", "fakeredis", *(other_servers() if marked else ())]
        metafunc.parametrize("client", servers, indirect=True)


@pytest.fixture(scope="session")
def start_other() -> Iterator[Callable[[str], RunningRedis]]:
    """Give a further server by its name, started when a test first asks for it."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(start_redis(binary=server_of(name))))


@pytest.fixture
def client(
    request: pytest.FixtureRequest, start_other: Callable[[str], RunningRedis]
) -> Iterator[redis.Redis]:
    if request.param == "redis":
        yield request.getfixturevalue("redis_client")
        return
    if request.param != "fakeredis":
        with redis.Redis.from_url(start_other(request.param).url) as client:
            client.flushall()
            yield client
        return
    server = fakeredis.FakeServer(server_type="redis")
    complete_scripting(server)
    with fakeredis.FakeRedis(server=server) as client:
        yield client


@pytest.fixture
def broker(client: redis.Redis) -> Broker:
    """Over both servers."""
    return Broker(client)


@pytest.fixture
def real_broker(redis_client: redis.Redis) -> Broker:
    """Over the real one alone."""
    return Broker(redis_client)
