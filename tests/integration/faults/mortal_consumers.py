"""Starts consumers and kills each at a random moment: ``mortal_consumers.py URL KILLS SEED``.

Forked rather than started, so that hundreds of them take seconds. What was sent, and what ran, is
left in Redis' lists ``sent`` and ``ran``, and what the last one had left to do in ``rest``.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time

import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from clasper_worker.celery import TRANSPORT
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from tests.unit.engine.queue.turns import message

QUEUES = ("clasper", "clasper.dispatch")
RULES = {"lease_seconds": 0.2, "attempts": 10_000, "tenant_concurrency": 5, "lane_depth": 10_000}
SENT_MEANWHILE = 40  # turns at most between a consumer's start and its end: some 10 ms


def consume(url: str, begun: int) -> None:
    """Run what comes, and settle it; at first say that it begins."""
    options = {"schedule_rules": RULES}
    with (
        Connection(url, transport=TRANSPORT, transport_options=options) as connection,
        redis.Redis.from_url(url) as client,
    ):

        def run(turn: Message) -> None:
            client.rpush("ran", turn.headers["id"])
            turn.ack()

        queues = [Queue(name, no_declare=True) for name in QUEUES]
        with Consumer(connection, queues, on_message=run, prefetch_count=8):
            os.write(begun, b"+")
            while True:
                try:
                    connection.drain_events(timeout=1)
                except TimeoutError:
                    continue


def fork(url: str) -> int:
    """A process that consumes until it is killed."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            consume(url, writing)
        finally:
            os._exit(1)
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    return child


def send(client: redis.Redis, chance: random.Random, number: int) -> None:
    """A turn of one of some sessions of some users."""
    user, role = chance.choice("uvw"), chance.choice("abcd")
    job = f"{user}{role}-{number:06}"
    with client.pipeline() as pipe:
        # A session keeps to one queue, so that its order of arrival is its order here.
        queue = QUEUES[role in "cd"]
        pipe.rpush("sent", job)
        pipe.lpush(queue, message(job=job, user_id=user, agent_role=role))
        pipe.execute()


def main(url: str, kills: int, seed: int) -> None:
    """Kill so many consumers, and let the last one finish."""
    chance = random.Random(seed)
    client = redis.Redis.from_url(url)
    keeper = Schedule(client, ScheduleRules(**RULES))  # type: ignore[arg-type]  # by its fields
    with Connection(url, transport=TRANSPORT) as connection:
        connection.default_channel  # noqa: B018 - loads what each would load again
    number = 0
    for _ in range(kills):
        child = fork(url)
        for _ in range(chance.randrange(SENT_MEANWHILE)):
            number += 1
            send(client, chance, number)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        keeper.reap()
    client.set("rest", number - len(set(client.lrange("ran", 0, -1))))
    survivor = fork(url)
    while client.keys("clasper:message:*") or client.exists(*QUEUES):
        keeper.reap()
        time.sleep(0.02)
    os.kill(survivor, signal.SIGKILL)
    os.waitpid(survivor, 0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
