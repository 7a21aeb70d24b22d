"""Counters of what a worker did beside its turns' steps, in the process's Prometheus registry."""

from __future__ import annotations

import threading
from functools import lru_cache

from prometheus_client import Counter


@lru_cache(maxsize=1)
def _jobs() -> Counter:
    return Counter(
        "clasper_jobs_total",
        "What became of notifications, heartbeats and standups.",
        ["job", "outcome"],
    )


def count(job: str, outcome: str, number: int = 1) -> None:
    """Count an outcome of ``notification``, ``heartbeat`` or ``standup``."""
    if number:
        _jobs().labels(job, outcome).inc(number)


def counted(job: str, outcome: str) -> float:
    """How often an outcome was counted in this process."""
    return sum(
        sample.value
        for metric in _jobs().collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
        and (sample.labels["job"], sample.labels["outcome"]) == (job, outcome)
    )


@lru_cache(maxsize=1)
def _rankings() -> Counter:
    return Counter(
        "clasper_smart_context_rankings_total",
        "Turns by what ranked their skills and memory; full: nothing did, all was told.",
        ["ranker"],
    )


@lru_cache(maxsize=1)
def _failures() -> Counter:
    return Counter(
        "clasper_smart_context_failures_total",
        "Times smart context could not do as configured, by the step that failed.",
        ["step"],
    )


def count_ranking(ranker: str | None) -> None:
    """Count one turn by its ranker; None: the full context was told."""
    _rankings().labels(ranker or "full").inc()


def count_failure(step: str) -> None:
    """Count one failure: ``index``, ``embed``, ``query`` or ``rank``."""
    _failures().labels(step).inc()


class _LateCounter:
    """A counter that is registered with its first count, on whichever thread that is.

    A program that only enqueues turns has none of them among its own figures.
    """

    _making = threading.Lock()

    def __init__(self, name: str, meaning: str, *labels: str) -> None:
        self._described = (name, meaning, labels)
        self._made: Counter | None = None

    def add(self, *labels: str, number: int = 1) -> None:
        """Count."""
        if self._made is None:
            with self._making:
                self._made = self._made or Counter(*self._described)
        self._made.labels(*labels).inc(number)


_redeliveries = _LateCounter(
    "clasper_redeliveries_total", "Messages that were delivered before.", "queue"
)
_losses = _LateCounter(
    "clasper_deliveries_lost_total",
    "Deliveries that were lost with who ran them; counted by the worker that noticed.",
    "cause",
)
_letters = _LateCounter("clasper_dead_letters_put_total", "New dead letters by their code.", "code")
_attempts = _LateCounter(
    "clasper_request_attempts_total",
    "Tries of requests to the model and the backend, by what came of them.",
    "to",
    "outcome",
)
_retries = _LateCounter("clasper_request_retries_total", "Tries beyond a request's first.", "to")


def count_redelivery(queue: str) -> None:
    """Count a message that was delivered before."""
    _redeliveries.add(queue)


def count_losses(cause: str, number: int) -> None:
    """Count deliveries that were lost: ``lease_lapsed`` or ``process_lost``."""
    if number:
        _losses.add(cause, number=number)


def count_dead_letter(code: str) -> None:
    """Count a new dead letter by `letter_reasons.code_of`."""
    _letters.add(code)


def count_attempt(to: str, outcome: str, *, again: bool) -> None:
    """Count one try of a request to ``model`` or ``backend``, and whether it was not the first."""
    _attempts.add(to, outcome)
    if again:
        _retries.add(to)
