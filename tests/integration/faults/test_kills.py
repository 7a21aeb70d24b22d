"""Consumers that are killed at random moments while the queue is not empty lose nothing."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import groupby

import pytest
import redis

from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis
from tests.integration.faults.conftest import HERE, REPOSITORY

pytestmark = pytest.mark.integration

KILLS = int(os.environ.get("CLASPER_TEST_KILLS", "60"))


@pytest.fixture
def server() -> Iterator[RunningRedis]:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        yield server


def test_no_kill_loses_a_message_or_changes_the_order_of_a_session(server: RunningRedis) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    finished = subprocess.run(
        [sys.executable, HERE / "mortal_consumers.py", server.url, str(KILLS), str(seed)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    with redis.Redis.from_url(server.url, decode_responses=True) as client:
        sent, ran = client.lrange("sent", 0, -1), client.lrange("ran", 0, -1)
        dead, left = client.zcard("clasper:dead"), set(client.keys("clasper:*"))
        rest = client.get("rest")
    told = f"seed {seed}: {len(sent)} turns, {len(ran)} runs, {rest} of them after the last kill"
    assert len(sent) > KILLS, told
    assert set(ran) == set(sent), told
    assert dead == 0, told
    for session in {job.partition("-")[0] for job in sent}:
        # A turn whose worker was killed runs again, before the next of its session.
        in_order = [job for job, _ in groupby(job for job in ran if job.startswith(session))]
        assert in_order == [job for job in sent if job.startswith(session)], told
    counters = {"clasper:tick", "clasper:queues", "clasper:leases:pulse", "clasper:leases:hold"}
    assert left - {"clasper:workers"} <= counters, told  # who looked lately; it expires
