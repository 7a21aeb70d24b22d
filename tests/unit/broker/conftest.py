"""A scheduler over a real Redis server, and over the one that stands in where there is none."""

from __future__ import annotations

from collections.abc import Iterator

import fakeredis
import pytest
import redis

from clasper_worker.local_stack.fake_redis import complete_scripting
from clasper_worker.local_stack.redis_server import RunningRedis
from tests.unit.broker.turns import Broker


@pytest.fixture
def redis_client(redis_server: RunningRedis) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["redis", "fakeredis"])
def client(request: pytest.FixtureRequest) -> Iterator[redis.Redis]:
    if request.param == "redis":
        yield request.getfixturevalue("redis_client")
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
