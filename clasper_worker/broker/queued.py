"""Looking for jobs in the queues' own lists, where no worker has taken them in yet."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator
from typing import Any

from clasper_worker.broker.schedule import Schedule, Withdrawal
from clasper_worker.broker.task_message import read_task_message

# As kombu names a queue's lists, one for each of its priorities.
_SEPARATOR = "\x06\x16"
_PRIORITIES = (3, 6, 9)
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]+")
_AT_ONCE = 200
_AT_A_GLANCE = 20
_LOOKED_AT = 1_000_000  # messages of a list at most
_GLANCE_SECONDS = 0.02


def take_from_queues(
    schedule: Schedule,
    queues: Collection[str],
    names: Collection[str],
    *,
    are_jobs: bool = False,
    thoroughly: bool = True,
) -> dict[str, Withdrawal]:
    """Take the messages of these jobs, or of these turns' jobs, out of the queues.

    They are taken in, and withdrawn as those that a worker has taken in: see
    `Schedule.withdraw_all`, which is to have remembered the names.

    It looks from the newest message on, so that what is sent or taken in meanwhile makes it look
    at some messages twice, but miss none that was there before.

    Args:
        schedule: the broker's scheduler.
        queues: the queues' names, beside those that workers have been seen to consume.
        names: ids of jobs and turns.
        are_jobs: whether all of them are jobs' ids, which lie readable in the messages.
        thoroughly: whether to look at all that waits. Else it looks at the newest messages alone,
            for as long as nobody notices: what it misses is remembered, and does not run.

    Returns:
        What became of the jobs whose messages were taken, by their ids.
    """
    client = schedule.client
    wanted = frozenset(names)
    # What needs no escape in JSON is found without reading every message.
    is_plain = are_jobs and all(_PLAIN.fullmatch(name) for name in names)
    written = [name.encode() for name in names] if is_plain else [b""]
    deadline = None if thoroughly else time.monotonic() + _GLANCE_SECONDS
    known = {queue.decode() for queue in client.smembers("clasper:queues")}
    found = [
        (queue, key, raw, message)
        for queue, key in _lists(known | set(queues))
        for raw in _messages(client, key, deadline)
        if any(text in raw for text in written)
        and (message := read_task_message(raw))
        and wanted & {message.job_id, message.turn_id}
    ]
    # Only now, since taking one moves those behind it.
    taken = [
        message.job_id for queue, key, raw, message in found if schedule.admit(queue, key, raw)
    ]
    # Mostly they are delivered as cancelled by now.
    words = schedule.withdraw_all(taken, remember=True) if taken else {}
    return {job: "withdrawn" if word == "unknown" else word for job, word in words.items()}


def _lists(queues: Collection[str]) -> Iterator[tuple[str, str]]:
    for queue in sorted(queues):
        yield queue, queue
        for priority in _PRIORITIES:
            yield queue, f"{queue}{_SEPARATOR}{priority}"


def _messages(client: Any, key: str, deadline: float | None) -> Iterator[bytes]:
    at_once = _AT_ONCE if deadline is None else _AT_A_GLANCE
    for start in range(0, _LOOKED_AT, at_once):
        if start and deadline is not None and time.monotonic() > deadline:
            return
        found = client.lrange(key, start, start + at_once - 1)
        yield from found
        if len(found) < at_once:
            return
