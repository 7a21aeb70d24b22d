"""Looking for jobs in the queues' own lists, where no worker has taken them in yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from clasper_worker.broker.schedule import Schedule, Withdrawal
from clasper_worker.broker.task_message import read_task_message

# As kombu names a queue's lists, one for each of its priorities.
_SEPARATOR = "\x06\x16"
_PRIORITIES = (3, 6, 9)
_AT_ONCE = 200
_LOOKED_AT = 200_000  # messages at most


def take_from_queues(
    schedule: Schedule, queues: Collection[str], names: Collection[str]
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

    Returns:
        What became of the jobs whose messages were taken, by their ids.
    """
    client = schedule.client
    wanted = frozenset(names)
    known = {queue.decode() for queue in client.smembers("clasper:queues")}
    found = [
        (queue, key, raw, message)
        for queue, key in _lists(known | set(queues))
        for raw in _messages(client, key)
        if (message := read_task_message(raw)) and wanted & {message.job_id, message.turn_id}
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


def _messages(client: Any, key: str) -> Iterator[bytes]:
    for start in range(0, _LOOKED_AT, _AT_ONCE):
        found = client.lrange(key, start, start + _AT_ONCE - 1)
        yield from found
        if len(found) < _AT_ONCE:
            return
