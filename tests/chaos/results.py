"""A row's figures and verdict, from its record."""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from tests.chaos import checks
from tests.chaos.records import RowRecord
from tests.chaos.recovery import late, recoveries, settled_after

_SHOWN = 5


@dataclass(frozen=True)
class RowResult:
    """What is printed and written of a row; counts of turns unless said otherwise.

    Attributes:
        name: of the row.
        title: of the row.
        seed: it ran with.
        faults: how often the fault struck.
        turns: sent.
        completed: with the right reply posted, and told to every caller.
        failed: Celery tasks that ended in a typed failure.
        lost: neither replied to nor failed.
        unreported: Celery tasks without a result, and notifications that are not acknowledged,
            although the reply is posted.
        doubled: messages, documents and tasks stored once too often.
        wrong: replies that are not the turn's own, or not in its thread, results that were not
            posted, and documents that a reply speaks of and nobody has.
        early: attempts to acknowledge a notification before its reply was stored.
        repeated: model calls made again after their answer had been journaled.
        redone: model calls made again because their answer may have died with its worker.
        conflicts: posts refused with 409.
        unfenced: posts tried by a worker that had been frozen past its lease.
        disorder: replies posted out of order, and turns of one session at the model at once.
        crashed: workers and Beats that ended by themselves.
        recovery_p50: seconds.
        recovery_max: seconds.
        settled: seconds from the end of the last fault to the last reply.
        seconds: that the row took.
        broken: the promises that were broken, by name.
        misheard: listeners with a wrong, missing or doubled token; None: nobody listened.
        evidence: the first offenders of each kind that is not nought, and notes.
    """

    name: str
    title: str
    seed: int
    faults: int
    turns: int
    completed: int
    failed: int
    lost: int
    unreported: int
    doubled: int
    wrong: int
    early: int
    repeated: int
    redone: int
    conflicts: int
    unfenced: int
    disorder: int
    crashed: int
    recovery_p50: float | None
    recovery_max: float | None
    settled: float | None
    seconds: float
    broken: tuple[str, ...]
    evidence: tuple[str, ...]
    misheard: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For a file."""
        return asdict(self)


def judge(
    record: RowRecord,
    title: str,
    *,
    allowed: Collection[str] = (),
    recovery_limit: float | None = None,
) -> RowResult:
    """Run all checks over a record.

    Args:
        record: of the row.
        title: of the row.
        allowed: what is counted, and breaks no promise.
        recovery_limit: seconds within which every turn must have gone on after a fault.
    """
    found = {
        "lost": checks.lost(record),
        "unreported": checks.unreported(record),
        "doubled": checks.doubled(record),
        "wrong": (
            *checks.wrong(record),
            *checks.misplaced(record),
            *checks.tools_missing(record),
        ),
        "early": checks.acknowledged_early(record),
        "repeated": checks.repeated(record),
        "unfenced": checks.unfenced(record),
        "disorder": (*checks.out_of_order(record), *checks.overlapping(record)),
        "failed": checks.failed(record),
        "misheard": checks.misheard(record),
        "crashed": record.crashed,
    }
    told = {**found, "conflicts": checks.conflicts(record)}
    broken = tuple(name for name, items in found.items() if items and name not in allowed)
    done = len(checks.completed(record))
    if done != len(record.sent) and not broken and not allowed:
        broken = ("completed",)
    settled = settled_after(record)
    times = [recovery.seconds for recovery in recoveries(record)]
    if recovery_limit is not None and (slow := late(record, recovery_limit)):
        broken += ("recovery",)
        told["recovery"] = slow
    return RowResult(
        name=record.row,
        title=title,
        seed=record.seed,
        faults=len(record.disturbances),
        turns=len(record.sent),
        completed=done,
        failed=len(found["failed"]),
        lost=len(found["lost"]),
        unreported=len(found["unreported"]),
        doubled=len(found["doubled"]),
        wrong=len(found["wrong"]),
        early=len(found["early"]),
        repeated=len(found["repeated"]),
        redone=len(checks.redone(record)),
        conflicts=len(told["conflicts"]),
        unfenced=len(found["unfenced"]),
        disorder=len(found["disorder"]),
        crashed=len(record.crashed),
        recovery_p50=round(statistics.median(times), 2) if times else None,
        recovery_max=round(max(times), 2) if times else None,
        settled=None if settled is None else round(settled, 2),
        seconds=round(record.seconds, 1),
        broken=broken,
        misheard=len(found["misheard"]) if record.heard else None,
        evidence=(
            *(f"{name}: {item}" for name, items in told.items() for item in items[:_SHOWN]),
            *record.notes,
        ),
    )
