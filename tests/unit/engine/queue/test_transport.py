"""Consuming through kombu, as a worker does, but without Celery."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from clasper_worker.celery import TRANSPORT
from clasper_worker.devkit.local_stack.redis_server import RedisBinary, RunningRedis, start_redis
from clasper_worker.engine.queue.dead_letter_thread import DeadLetterThread
from clasper_worker.engine.queue.lease_keeper import LeaseKeeper
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from tests.unit.engine.queue.reports import Reports
from tests.unit.engine.queue.turns import QUEUES, Broker, message

DEADLINE = 20.0
RULES: dict[str, Any] = {"lease_seconds": 600.0, "lane_depth": 1}


class Worker:
    """A connection that consumes, and what it was given."""

    passing: tuple[type[Exception], ...] = (TimeoutError,)  # that end no worker

    def __init__(self, url: str, *queues: str, prefetch: int = 10) -> None:
        self.connection = Connection(
            url, transport=TRANSPORT, transport_options={"schedule_rules": RULES}
        )
        self.channel = self.connection.default_channel
        self.messages: list[Message] = []
        self.undecodable: list[Message] = []
        self.consumer = Consumer(
            self.channel,
            [Queue(queue, no_declare=True) for queue in queues or QUEUES],
            on_message=self.messages.append,
            prefetch_count=prefetch,
        )
        self.consumer.consume()

    @property
    def jobs(self) -> list[str]:
        return [message.headers["id"] for message in self.messages]

    def drain(self, condition: Callable[[], object]) -> None:
        """Consume until the condition is true."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            assert time.monotonic() < deadline
            try:
                self.connection.drain_events(timeout=0.05)
            except self.passing:
                continue

    def turn(self, times: int = 3) -> None:
        """Consume a few times, whether or not something comes."""
        for _ in range(times):
            try:
                self.connection.drain_events(timeout=0.3)
            except self.passing:
                continue

    def close(self) -> None:
        self.connection.close()


StartWorker = Callable[..., Worker]


@pytest.fixture
def start(redis_server: RunningRedis) -> Iterator[StartWorker]:
    workers: list[Worker] = []

    def start(*queues: str, url: str = redis_server.url, **options: Any) -> Worker:
        workers.append(Worker(url, *queues, **options))
        return workers[-1]

    yield start
    for worker in workers:
        worker.close()


def test_a_message_is_consumed_and_settled(real_broker: Broker, start: StartWorker) -> None:
    real_broker.send("a")
    worker = start()
    worker.drain(lambda: worker.messages)
    (message,) = worker.messages
    assert message.payload[1]["user_id"] == "u"
    assert message.headers["clasper_lease"] == message.delivery_tag
    assert not {"redelivered", "clasper_verdict", "clasper_collected"} & set(message.headers)
    message.ack()
    assert real_broker.left() == set()


def test_a_message_that_comes_while_it_waits_is_consumed(
    real_broker: Broker, start: StartWorker
) -> None:
    worker = start()
    worker.turn(1)
    for number, queue in enumerate(QUEUES):
        real_broker.push(message("some.task", job=queue), queue)
        worker.drain(lambda number=number: len(worker.messages) == number + 1)  # type: ignore[misc]
    assert worker.jobs == list(QUEUES)


def test_no_more_than_the_prefetch_count_is_taken(real_broker: Broker, start: StartWorker) -> None:
    for number in range(5):
        real_broker.send(f"{number}", role=f"r{number}")
    worker = start(prefetch=2)
    worker.drain(lambda: len(worker.messages) == 2)
    worker.turn()
    assert worker.jobs == ["0", "1"]
    worker.messages[0].ack()
    worker.drain(lambda: len(worker.messages) == 3)
    assert real_broker.client.scard("clasper:running") == 2


def test_a_verdict_and_what_was_collected_stand_in_the_headers(
    real_broker: Broker, start: StartWorker
) -> None:
    for job in ("a", "b", "too many"):
        real_broker.send(job, message=job, metadata={"busy": "collect"})
    worker = start()
    worker.drain(lambda: len(worker.messages) == 2)
    group, refused = worker.messages
    assert refused.headers["clasper_verdict"] == "lane_full"
    ((job, request),) = [tuple(one.values()) for one in group.headers["clasper_collected"]]
    assert (job, request["message"]) == ("b", "b")


def test_what_is_given_back_comes_again_and_says_so(
    real_broker: Broker, start: StartWorker
) -> None:
    real_broker.send("a")
    worker = start()
    worker.drain(lambda: worker.messages)
    worker.messages[0].requeue()
    worker.drain(lambda: len(worker.messages) == 2)
    assert worker.messages[1].headers["redelivered"] is True
    assert worker.messages[1].delivery_info["redelivered"] is True


def test_what_is_rejected_becomes_a_dead_letter(real_broker: Broker, start: StartWorker) -> None:
    real_broker.send("a")
    real_broker.send("b")
    worker = start()
    worker.drain(lambda: worker.messages)
    worker.messages[0].dead_letter_reason = "no such task: x"
    worker.messages[0].reject()
    worker.drain(lambda: len(worker.messages) == 2)
    assert worker.jobs == ["a", "b"]
    assert [letter["reason"] for letter in real_broker.dead().values()] == ["no such task: x"]


def test_a_closed_connection_gives_back_what_it_has_not_settled(
    real_broker: Broker, start: StartWorker
) -> None:
    real_broker.send("a", role="one")
    real_broker.send("b", role="two")
    first = start()
    first.drain(lambda: len(first.messages) == 2)
    first.messages[0].ack()
    first.close()
    assert real_broker.client.scard("clasper:running") == 0
    second = start()
    second.drain(lambda: second.messages)
    assert second.jobs == ["b"]


def test_what_is_settled_after_its_connection_closed_is_settled_by_the_next(
    real_broker: Broker, redis_client: redis.Redis, start: StartWorker
) -> None:
    real_broker.send("a")
    keeper = LeaseKeeper(
        Schedule(redis_client, ScheduleRules(**RULES)),
        600.0,
        on_lost=pytest.fail,  # type: ignore[arg-type]
        on_cancelled=pytest.fail,  # type: ignore[arg-type]
        reporter=Reports(),
    )
    first = start()
    first.connection.transport.attach(keeper)
    first.drain(lambda: first.messages)
    (held,) = first.messages
    assert keeper.is_fresh(held.delivery_tag)
    first.channel.qos._delivered.clear()  # it still runs: a lost connection leaves it its lease
    first.close()
    first.channel.give_back(held.delivery_tag, settled=True)
    second = start()
    second.connection.transport.attach(keeper)
    second.drain(lambda: not real_broker.left())
    assert second.messages == []


def test_messages_come_though_an_interruption_cannot_be_passed_on(
    real_broker: Broker, redis_client: redis.Redis, start: StartWorker
) -> None:
    asked = threading.Event()

    def fail(_: object) -> tuple[()]:
        asked.set()
        raise redis.ConnectionError("gone")

    reporter = DeadLetterThread(fail, fail, fail)
    reporter.start()
    keeper = LeaseKeeper(
        Schedule(redis_client, ScheduleRules(**RULES)),
        600.0,
        on_lost=pytest.fail,  # type: ignore[arg-type]
        on_cancelled=pytest.fail,  # type: ignore[arg-type]
        reporter=reporter,
    )
    real_broker.send("running")
    first = start()
    first.drain(lambda: first.messages)
    real_broker.send("interrupts", metadata={"busy": "interrupt"})
    real_broker.send("other", role="other")
    second = start()
    second.connection.transport.attach(keeper)
    second.drain(lambda: second.messages)
    assert second.jobs == ["other"]
    assert asked.wait(DEADLINE)
    reporter.close(DEADLINE)


def test_a_consumer_without_acknowledgement_takes_from_the_list_itself(
    real_broker: Broker, redis_server: RunningRedis
) -> None:
    with Connection(redis_server.url, transport=TRANSPORT) as connection:
        got: list[Message] = []
        with Consumer(
            connection.default_channel,
            [Queue("replies", no_declare=True)],
            on_message=got.append,
            no_ack=True,
        ):
            real_broker.push(message("some.task", job="a"), "replies")
            connection.drain_events(timeout=DEADLINE)
        assert [one.headers["id"] for one in got] == ["a"]
    assert real_broker.client.keys("clasper:*") == []


def test_what_another_celery_app_has_unacknowledged_is_left_alone(
    real_broker: Broker, start: StartWorker
) -> None:
    client = real_broker.client
    client.hset("unacked", "t", json.dumps([json.loads(message("theirs")), "", "theirs"]))
    client.zadd("unacked_index", {"t": time.time() - 86_400})
    worker = start()
    worker.turn()
    worker.channel.connection.cycle.maybe_restore_messages()
    worker.channel.qos.restore_visible(interval=1)
    assert client.hlen("unacked") == client.zcard("unacked_index") == 1


def unreadable(**changes: Any) -> bytes:
    """A message that the scheduler takes and kombu cannot read."""
    raw = json.loads(message("some.task", job="bad"))
    for name, change in changes.items():
        raw[name] = {**raw[name], **change} if isinstance(change, dict) else change
    return json.dumps(raw).encode()


UNREADABLE = {
    "its body is not Base64": unreadable(body="AAA"),
    "its body is a number": unreadable(body=7),
    "an unknown encoding": unreadable(properties={"body_encoding": "rot13"}),
    "an encoding that is a number": unreadable(properties={"body_encoding": 7}),
    "delivery info that is none": unreadable(properties={"delivery_info": 7}),
    "a number that JSON has not": unreadable().replace(b'"priority": 0', b'"priority": 0x10'),
    "no UTF-8": unreadable().replace(b'"lang": "py"', b'"lang": "\xff"'),
}


@pytest.mark.parametrize("raw", UNREADABLE.values(), ids=UNREADABLE)
def test_what_kombu_cannot_read_becomes_a_dead_letter_and_consuming_goes_on(
    real_broker: Broker, start: StartWorker, raw: bytes
) -> None:
    real_broker.push(raw)
    worker = start()
    real_broker.push(message("some.task", job="good"))
    worker.drain(lambda: "good" in worker.jobs)
    if "bad" not in worker.jobs:  # else it is the consumer's to judge
        (letter,) = real_broker.dead().values()
        assert letter["job"] == "bad"
        assert letter["reason"].startswith("not a message that can be read: ")
    assert real_broker.client.scard("clasper:running") == len(worker.messages)


def test_a_group_with_a_member_that_cannot_be_read_becomes_dead_letters(
    real_broker: Broker, start: StartWorker
) -> None:
    route = {"user_id": "u", "metadata": {"busy": "collect"}}
    for job, body in (("a", "[]"), ("b", "compressed")):
        real_broker.push(message(job=job, body=body, headers={"clasper_route": route}))
    real_broker.push(message("some.task", job="good"))
    worker = start()
    worker.drain(lambda: "good" in worker.jobs)
    assert sorted(letter["job"] for letter in real_broker.dead().values()) == ["a", "b"]


@pytest.fixture(scope="module")
def fake_server() -> Iterator[RunningRedis]:
    with start_redis(binary=RedisBinary(sys.executable, "", "fake")) as server:
        yield server


@pytest.fixture
def on_fake(fake_server: RunningRedis, start: StartWorker) -> Worker:
    worker = start(url=fake_server.url)
    # It closes a connection now and then; a worker connects again.
    worker.passing = (TimeoutError, *worker.connection.connection_errors)
    return worker


def test_it_works_on_the_stand_in_for_redis(fake_server: RunningRedis, on_fake: Worker) -> None:
    with redis.Redis.from_url(fake_server.url) as client:
        broker = Broker(client)
        on_fake.turn(1)
        broker.send("a")
        on_fake.drain(lambda: on_fake.messages)
        broker.send("b")
        on_fake.turn()
        assert on_fake.jobs == ["a"]
        on_fake.messages[0].ack()
        on_fake.drain(lambda: len(on_fake.messages) == 2)
        on_fake.messages[1].ack()
        assert broker.left() == set()


def test_the_stand_in_is_not_asked_without_a_pause(
    on_fake: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_fake.turn(2)
    asked: list[None] = []
    ask = on_fake.channel._exchange
    monkeypatch.setattr(
        on_fake.channel,
        "_exchange",
        lambda **how: (asked.append(None), ask(**how))[1],  # type: ignore[func-returns-value]
    )
    on_fake.turn(3)
    assert len(asked) < 40  # rather than hundreds
