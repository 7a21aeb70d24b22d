"""How long turns stood still after a fault: pure, from a row's record."""

from __future__ import annotations

from collections import defaultdict

from tests.chaos.records import Disturbance, RowRecord


def recovery_times(record: RowRecord) -> tuple[float, ...]:
    """Seconds from faults to the first sign that the work goes on.

    For a fault that strikes workers: for each turn that one of them was at (it had made a call for
    it, and the reply was not stored yet), the time until the turn's next call of any kind after
    the fault. For a fault that strikes a server: the time from its end to the next stored reply.
    """
    times: list[float] = []
    moments = _moments(record)
    for fault in record.disturbances:
        if fault.workers:
            times += _of_turns(fault, record, moments)
        elif (next_reply := _next_reply(record, fault.until)) is not None:
            times.append(next_reply - fault.until)
    return tuple(times)


def _moments(record: RowRecord) -> dict[str, list[tuple[float, str]]]:
    """When which worker called for each turn."""
    moments: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    for call in record.calls:
        moments[call.token].append((call.at, call.worker))
    for post in record.posts:
        if post.kind != "task":
            moments[post.token].append((post.at, post.worker))
    return {token: sorted(calls) for token, calls in moments.items() if token}


def _of_turns(
    fault: Disturbance, record: RowRecord, moments: dict[str, list[tuple[float, str]]]
) -> list[float]:
    replied = {
        post.token: post.at
        for post in reversed(record.posts)
        if post.kind == "message" and post.outcome == "stored"
    }
    times = []
    for token, calls in moments.items():
        before = [worker for at, worker in calls if at <= fault.at]
        if not before or before[-1] not in fault.workers:
            continue
        if replied.get(token, fault.at + 1) <= fault.at:
            continue
        after = [at for at, _ in calls if at > fault.at]
        if after:
            times.append(after[0] - fault.at)
    return times


def _next_reply(record: RowRecord, since: float) -> float | None:
    later = [
        post.at
        for post in record.posts
        if post.kind == "message" and post.outcome == "stored" and post.at >= since
    ]
    return min(later, default=None)
