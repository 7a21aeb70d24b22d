"""The turns that are run together with another of their session (busy policy ``collect``)."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterable, Sequence
from typing import Any

from clasper_worker.broker.schedule import Schedule, redis_answers


def collected_requests(raws: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the collected messages ask for: each ``{"job_id", "request"}``, in order of arrival."""
    return [_request(json.loads(raw)) for raw in raws]


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


def _request(message: dict[str, Any]) -> dict[str, Any]:
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    _, kwargs, *_ = json.loads(body)
    return {"job_id": message["headers"]["id"], "request": kwargs}
