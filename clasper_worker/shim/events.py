"""A job as server-sent events (contract Part 2: ``start``, ``done``, ``error``).

Each event has an id, so that a client whose connection broke goes on with ``Last-Event-ID``.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from clasper_worker.shim.results import JobResults

_START, _END = "1", "2"
_LOOK_SECONDS = 30.0


async def job_events(
    results: JobResults, job_id: str, last_seen: str | None
) -> AsyncIterator[dict[str, Any]]:
    """The job's events after ``last_seen``; ends with ``done`` or ``error``."""
    if last_seen == _END:
        return
    if last_seen != _START:
        yield _event(_START, "start", {"type": "start", "job_id": job_id})
    while not (outcome := await results.wait(job_id, _LOOK_SECONDS)).ended:
        continue  # a turn may take minutes; comments keep the connection open meanwhile
    if outcome.error is not None:
        yield _event(_END, "error", {"type": "error", **outcome.error})
        return
    result = outcome.result or {}
    summary = {"usage": result.get("usage"), "cost": result.get("cost"), "result": result}
    yield _event(_END, "done", {"type": "done", **summary})


def _event(number: str, name: str, data: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, "event": name, "data": json.dumps(data, ensure_ascii=False)}
