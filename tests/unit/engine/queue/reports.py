"""A reporter that keeps what it is told."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from clasper_worker.engine.queue.scheduler_types import Burial


class Reports:
    """What was to be reported."""

    def __init__(self) -> None:
        self.letters: list[Burial] = []
        self.jobs: list[tuple[str, ...]] = []

    def dead_letters(self, buried: Iterable[Burial]) -> None:
        self.letters.extend(buried)

    def interrupts(self, jobs: Sequence[str]) -> None:
        self.jobs.append(tuple(jobs))
