"""What waits, runs and is stuck in the broker's Redis, as one look at it tells."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from clasper_worker.config.names import QUEUES
from clasper_worker.engine.queue.scheduler import Schedule, redis_answers

_AT_ONCE = 1000
_PRIORITY = "\x06\x16"  # kombu's separator of a list's name and its priority
_PRIORITIES = (3, 6, 9)
_KEY = "clasper:"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """One queue.

    Attributes:
        waiting: messages that no worker runs: not taken in yet, ready, or behind another of their
            session.
        running: messages that a worker has.
        oldest: seconds since the one that waits longest was taken in; None where none was.
    """

    waiting: int = 0
    running: int = 0
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """All queues.

    Attributes:
        queues: by name.
        capped: users of whom no more turns run until one of theirs ends
            (``CLASPER_TENANT_CONCURRENCY``).
        suspect: messages that lost several workers, and run one at a time.
        dead: dead letters.
    """

    queues: dict[str, QueueStatus]
    capped: int
    suspect: int
    dead: int

    @property
    def waiting(self) -> int:
        """Messages that wait, in all queues."""
        return sum(queue.waiting for queue in self.queues.values())

    @property
    def running(self) -> int:
        """Messages that run, of all queues."""
        return sum(queue.running for queue in self.queues.values())

    @property
    def oldest(self) -> float | None:
        """Seconds that the oldest of all has waited."""
        ages = [queue.oldest for queue in self.queues.values() if queue.oldest is not None]
        return max(ages, default=None)


def read_broker_status(schedule: Schedule) -> BrokerStatus:
    """Look at the queues; takes a while with many messages, and stops nobody.

    Raises:
        StateUnavailableError: Redis does not answer, or refuses.
    """
    client: Any = schedule.client
    waiting: Counter[str] = Counter()
    running: Counter[str] = Counter()
    oldest: dict[str, int] = {}
    with redis_answers():
        seconds, microseconds = client.time()
        now = seconds * 1000 + microseconds // 1000
        for name in QUEUES:
            waiting[name] += sum(client.llen(key) for key in _lists(name))
        for tags in _known_tags(client):
            for queue, since, is_running in _messages(client, tags):
                if is_running:
                    running[queue] += 1
                    continue
                waiting[queue] += 1
                if since is not None:
                    oldest[queue] = min(oldest.get(queue, since), since)
        names = (*QUEUES, *sorted({*waiting, *running} - set(QUEUES)))
        return BrokerStatus(
            queues={
                name: QueueStatus(
                    waiting[name],
                    running[name],
                    max(now - oldest[name], 0) / 1000 if name in oldest else None,
                )
                for name in names
            },
            capped=client.scard(f"{_KEY}capped"),
            suspect=client.exists(f"{_KEY}suspect") + client.llen(f"{_KEY}suspects"),
            dead=client.zcard(f"{_KEY}dead"),
        )


def _lists(queue: str) -> Iterator[str]:
    yield queue
    yield from (f"{queue}{_PRIORITY}{priority}" for priority in _PRIORITIES)


def _known_tags(client: Any) -> Iterator[Sequence[str]]:
    """The tags of all messages that were taken in, some hundreds at a time."""
    cursor = 0
    while True:
        cursor, found = client.hscan(f"{_KEY}jobs", cursor, count=_AT_ONCE)
        if found:
            yield [tag.decode("utf-8", "replace") for tag in found.values()]
        if cursor == 0:
            return


def _messages(client: Any, tags: Sequence[str]) -> Iterator[tuple[str, int | None, bool]]:
    """Each message's queue, when it was taken in (milliseconds), and whether it runs."""
    with client.pipeline(transaction=False) as pipe:
        for tag in tags:
            pipe.hmget(f"{_KEY}message:{tag}", "q", "at")
            pipe.sismember(f"{_KEY}running", tag)
        answers = pipe.execute()
    for (queue, since), is_running in zip(answers[::2], answers[1::2], strict=True):
        if queue is not None:  # it ended meanwhile
            yield queue.decode(), int(since) if since else None, bool(is_running)
