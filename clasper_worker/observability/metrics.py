"""Counters of what the jobs did, in the process's Prometheus registry."""

from __future__ import annotations

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
