"""What a worker warns of in the Redis that is its broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis
import structlog

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.redis_server import RunningRedis
from clasper_worker.engine.redis.doubts import redis_doubts, warn_of_doubtful_redis

GOOD = {"aof_enabled": 1, "maxmemory_policy": "noeviction", "cluster_enabled": 0}


@pytest.mark.parametrize(
    ("differs", "fix"),
    [
        ({"aof_enabled": 0}, "set appendonly yes (and appendfsync everysec)"),
        ({"maxmemory_policy": "allkeys-lru"}, "set maxmemory-policy noeviction"),
        ({"maxmemory_policy": "volatile-ttl"}, "set maxmemory-policy noeviction"),
        ({"cluster_enabled": 1}, "use a Redis that is not a cluster, with replicas and Sentinels"),
    ],
)
def test_a_redis_that_may_lose_work_is_told_with_the_fix(
    differs: dict[str, object], fix: str
) -> None:
    (doubt,) = redis_doubts({**GOOD, **differs})
    assert doubt.fix.startswith(fix)


@pytest.mark.parametrize("info", [GOOD, {}, {"redis_version": "7.2.4"}])
def test_what_a_server_does_not_tell_is_not_doubted(info: dict[str, object]) -> None:
    assert redis_doubts(info) == ()


def test_a_real_server_is_asked_without_config(
    redis_server: RunningRedis, settings_of: Callable[..., Settings]
) -> None:
    """As on a managed Redis, whose users may not ask for its configuration."""
    admin = redis.Redis.from_url(redis_server.url)
    admin.execute_command("ACL", "SETUSER", "managed", "on", ">pw", "~*", "&*", "+info")  # type: ignore[no-untyped-call]
    admin.config_set("maxmemory-policy", "allkeys-lru")
    admin.config_set("appendonly", "no")
    url = redis_server.url.replace("redis://", "redis://managed:pw@")
    try:
        with structlog.testing.capture_logs() as lines:
            warn_of_doubtful_redis(settings_of(celery_broker_url=url))
    finally:
        admin.config_set("maxmemory-policy", "noeviction")
        admin.config_set("appendonly", "yes")
        admin.execute_command("ACL", "DELUSER", "managed")  # type: ignore[no-untyped-call]
        admin.close()
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("broker.doubtful", "warning"),
        ("broker.doubtful", "warning"),
    ]
    assert "pw" not in repr(lines)


def test_a_server_that_does_not_answer_delays_no_start(
    settings_of: Callable[..., Settings],
) -> None:
    with structlog.testing.capture_logs() as lines:
        warn_of_doubtful_redis(settings_of(celery_broker_url="redis://127.0.0.1:1/0"))
        warn_of_doubtful_redis(settings_of(celery_broker_url="amqp://127.0.0.1:1//"))
    assert [line["event"] for line in lines] == ["broker.not_looked_at"]
