"""How long turns stood still after a fault: pure, from a row's record."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tests.chaos.records import Disturbance, RowRecord


@dataclass(frozen=True, slots=True)
class Recovery:
    """One standstill.

    Attributes:
        fault: when it began (or, for an outage, was over).
        again: when work went on.
        token: of the turn; None for an outage, and for a Beat.
    """

    fault: float
    again: float
    token: str | None = None

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.again - self.fault


def recoveries(record: RowRecord) -> tuple[Recovery, ...]:
    """The standstills after each fault.

    For a fault that strikes workers: for each turn that one of them was at (it had made a call for
    it, and the reply was not stored yet), until the turn's next call of any kind after the fault.
    For a fault that strikes a server: from its end until the next stored reply. For a Beat that
    led: until the next tick of another one that can lead.
    """
    found: list[Recovery] = []
    moments = _moments(record)
    replied = {
        post.token: post.at
        for post in reversed(record.posts)
        if post.kind == "message" and post.outcome == "stored"
    }
    for fault in record.disturbances:
        if fault.workers:
            found += _of_turns(fault, moments, replied)
        elif fault.beat is not None:
            later = [t.at for t in record.ticks if not t.stock and t.at > fault.at]
            found += [Recovery(fault.at, min(later))] if later else []
        elif (next_reply := _next_reply(record, fault.until)) is not None:
            found.append(Recovery(fault.until, next_reply))
    return tuple(found)


def settled_after(record: RowRecord) -> float | None:
    """Seconds from the end of the last fault to the last reply: what stood still unseen too.

    None without faults, or where every reply was there before.
    """
    over = [fault.at if math.isinf(fault.until) else fault.until for fault in record.disturbances]
    replied = [p.at for p in record.posts if p.kind == "message" and p.outcome == "stored"]
    if not over or not replied or max(replied) <= max(over):
        return None
    return max(replied) - max(over)


def late(record: RowRecord, limit: float) -> tuple[str, ...]:
    """Turns that stood still for longer than so many seconds after a single fault.

    Where workers were struck again meanwhile, the turn may have been with them without a call that
    would show it; such a standstill says nothing.
    """
    return tuple(
        f"{each.token or 'all'}: went on {each.seconds:.1f} s after the fault"
        for each in recoveries(record)
        if each.seconds > limit
        and not any(
            other.workers and each.fault < other.at < each.again for other in record.disturbances
        )
    )


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
    fault: Disturbance,
    moments: Mapping[str, list[tuple[float, str]]],
    replied: Mapping[str, float],
) -> Iterator[Recovery]:
    for token, calls in moments.items():
        before = [worker for at, worker in calls if at <= fault.at]
        if not before or before[-1] not in fault.workers:
            continue
        if token in replied and replied[token] <= fault.at:
            continue
        again = next((at for at, _ in calls if at > fault.at), None)
        if again is not None:
            yield Recovery(fault.at, again, token)


def _next_reply(record: RowRecord, since: float) -> float | None:
    later = [
        post.at
        for post in record.posts
        if post.kind == "message" and post.outcome == "stored" and post.at >= since
    ]
    return min(later, default=None)
