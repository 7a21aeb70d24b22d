"""Counters of what smart context did, in the process's Prometheus registry."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter


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
