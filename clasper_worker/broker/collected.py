"""The turns that are run together with another of their session (busy policy ``collect``)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any

from clasper_worker.broker.headers import NOTIFICATION_HEADER
from clasper_worker.broker.schedule import Schedule, redis_answers
from clasper_worker.broker.task_message import read_task_message


def collected_requests(raws: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the collected messages ask for: each ``{"job_id", "request", …}``, in order of arrival.

    Where one answers a notification, that is named under ``notification``.
    """
    return [_request(raw) for raw in raws]


class Groups:
    """Takes groups of collected turns apart.

    Args:
        schedule: the broker's scheduler; None where the broker is not Redis.
    """

    def __init__(self, schedule: Schedule | None) -> None:
        self._schedule = schedule

    async def part(self, lease: str | None, job_ids: Sequence[str]) -> None:
        """Have these jobs, collected by the delivery of this token, wait behind it again.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        if self._schedule is None or lease is None:
            return
        with redis_answers():
            await asyncio.to_thread(self._schedule.part, lease, job_ids)

    async def close(self) -> None:
        """Close the connections."""
        if self._schedule is not None:
            self._schedule.close()


def _request(raw: bytes) -> dict[str, Any]:
    message = read_task_message(raw)
    if message is None or message.kwargs is None:
        raise ValueError("a collected message cannot be read")
    asked: dict[str, Any] = {"job_id": message.job_id, "request": message.kwargs}
    if NOTIFICATION_HEADER in message.headers:
        asked["notification"] = message.headers[NOTIFICATION_HEADER]
    return asked
