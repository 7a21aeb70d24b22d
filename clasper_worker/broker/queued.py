"""Looking for jobs in the queues' own lists, where no worker has taken them in yet."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from clasper_worker.broker.task_message import read_task_message

# As kombu names a queue's lists, one for each of its priorities.
_SEPARATOR = "\x06\x16"
_PRIORITIES = (3, 6, 9)
_AT_ONCE = 200
_LOOKED_AT = 200_000  # messages at most


def take_from_queues(
    client: Any, queues: Collection[str], names: Collection[str]
) -> tuple[str, ...]:
    """Take the messages of these jobs, or of these turns' jobs, out of the queues.

    It looks from the newest message on, so that what is sent or taken in meanwhile makes it look
    at some messages twice, but miss none that was there before.

    Args:
        client: of the broker's Redis, one that answers in bytes.
        queues: the queues' names, beside those that workers have been seen to consume.
        names: ids of jobs and turns.

    Returns:
        The ids of the jobs whose messages were taken; nobody else can get those any more.
    """
    wanted = frozenset(names)
    known = {queue.decode() for queue in client.smembers("clasper:queues")}
    found = [
        (key, raw, message.job_id)
        for key in _lists(known | set(queues))
        for raw in _messages(client, key)
        if (message := read_task_message(raw)) and wanted & {message.job_id, message.turn_id}
    ]
    # Only now, since taking one moves those behind it.
    taken = [job for key, raw, job in found if client.lrem(key, 1, raw)]
    return tuple(dict.fromkeys(taken))


def _lists(queues: Collection[str]) -> Iterator[str]:
    for queue in sorted(queues):
        yield queue
        for priority in _PRIORITIES:
            yield f"{queue}{_SEPARATOR}{priority}"


def _messages(client: Any, key: str) -> Iterator[bytes]:
    for start in range(0, _LOOKED_AT, _AT_ONCE):
        found = client.lrange(key, start, start + _AT_ONCE - 1)
        yield from found
        if len(found) < _AT_ONCE:
            return
