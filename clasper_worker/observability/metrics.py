"""Counters of what a worker did beside its turns' steps, in the process's Prometheus registry."""

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


@lru_cache(maxsize=1)
def _redeliveries() -> Counter:
    return Counter(
        "clasper_redeliveries_total",
        "Messages that were delivered before, by queue.",
        ["queue"],
    )


@lru_cache(maxsize=1)
def _losses() -> Counter:
    return Counter(
        "clasper_deliveries_lost_total",
        "Deliveries that were lost with who ran them; counted by the worker that noticed.",
        ["cause"],
    )


@lru_cache(maxsize=1)
def _letters() -> Counter:
    return Counter("clasper_dead_letters_put_total", "New dead letters by their code.", ["code"])


@lru_cache(maxsize=1)
def _attempts() -> Counter:
    return Counter(
        "clasper_request_attempts_total",
        "Requests to the model and the backend, each try by what came of it.",
        ["to", "outcome"],
    )


@lru_cache(maxsize=1)
def _retries() -> Counter:
    return Counter(
        "clasper_request_retries_total",
        "Tries beyond a request's first, by whom they were made to.",
        ["to"],
    )


def count_redelivery(queue: str) -> None:
    """Count a message that was delivered before."""
    _redeliveries().labels(queue).inc()


def count_losses(cause: str, number: int) -> None:
    """Count deliveries that were lost: ``lease_lapsed`` or ``process_lost``."""
    if number:
        _losses().labels(cause).inc(number)


def count_dead_letter(code: str) -> None:
    """Count a new dead letter by `letter_reasons.code_of`."""
    _letters().labels(code).inc()


def count_attempt(to: str, outcome: str, *, again: bool) -> None:
    """Count one try of a request to ``model`` or ``backend``, and whether it was not the first."""
    _attempts().labels(to, outcome).inc()
    if again:
        _retries().labels(to).inc()
