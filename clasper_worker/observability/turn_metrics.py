"""Prometheus figures of turns: a listener on their events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram

from clasper_worker.observability.events import ModelAnswer, TurnEnd, TurnEvents, TurnReference

# Seconds. A turn takes from a few milliseconds (a fast model) to its hard limit.
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 640.0)


@dataclass(frozen=True, slots=True)
class _Families:
    turns: Counter
    seconds: Histogram
    model_calls: Counter
    tokens: Counter
    cost: Counter
    unpriced: Counter
    tool_calls: Counter
    resumed: Counter
    waits: Counter


def _families(registry: CollectorRegistry) -> _Families:
    return _Families(
        turns=Counter(
            "clasper_turns_total",
            "Runs of turns by how they ended.",
            ["kind", "outcome", "code"],
            registry=registry,
        ),
        seconds=Histogram(
            "clasper_turn_seconds",
            "Where the time of turns went: queue (lane, a part of it), model, tools, backend; total"
            " is without queue.",
            ["part"],
            buckets=_BUCKETS,
            registry=registry,
        ),
        model_calls=Counter(
            "clasper_model_calls_total",
            "Answered model calls.",
            ["provider", "model"],
            registry=registry,
        ),
        tokens=Counter(
            "clasper_tokens_total",
            "Tokens; cached ones are a part of the input.",
            ["provider", "model", "direction"],
            registry=registry,
        ),
        cost=Counter(
            "clasper_cost_usd_total",
            "USD that turns of known price cost, by the model that answered last.",
            ["model"],
            registry=registry,
        ),
        unpriced=Counter(
            "clasper_unpriced_turns_total",
            "Turns whose price or usage is not known.",
            ["model"],
            registry=registry,
        ),
        tool_calls=Counter(
            "clasper_tool_calls_total",
            "Tool calls by tool and outcome.",
            ["tool", "outcome"],
            registry=registry,
        ),
        resumed=Counter(
            "clasper_turns_resumed_total",
            "Runs that went on from what an earlier run had journaled.",
            registry=registry,
        ),
        waits=Counter(
            "clasper_turn_waits_total",
            "Times that a turn waited, by reason.",
            ["reason"],
            registry=registry,
        ),
    )


@lru_cache(maxsize=1)
def _of_the_process() -> _Families:
    return _families(REGISTRY)


class TurnMetrics(TurnEvents):
    """Counts what turns report.

    Its labels hold no identifiers of users, sessions or tasks: their number would have no bound.

    Args:
        registry: where the figures go; the process's own when omitted.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self._to = _of_the_process() if registry is None else _families(registry)

    def started(self, turn: TurnReference, *, resumed: bool, queue_seconds: float | None) -> None:
        """See `TurnEvents.started`."""
        del turn
        if resumed:
            self._to.resumed.inc()
        if queue_seconds is not None:
            self._to.seconds.labels("queue").observe(queue_seconds)

    def model_answered(self, turn: TurnReference, answer: ModelAnswer) -> None:
        """See `TurnEvents.model_answered`."""
        del turn
        whom = (answer.provider, answer.model)
        self._to.model_calls.labels(*whom).inc()
        for direction, count in (
            ("input", answer.prompt_tokens),
            ("output", answer.completion_tokens),
            ("cached", answer.cached_tokens),
        ):
            if count:
                self._to.tokens.labels(*whom, direction).inc(count)

    def tool_answered(
        self,
        turn: TurnReference,
        *,
        step: int,
        index: int,
        tool: str,
        seconds: float,
        chars: int,
        succeeded: bool,
    ) -> None:
        """See `TurnEvents.tool_answered`."""
        del turn, step, index, seconds, chars
        self._to.tool_calls.labels(tool, "ok" if succeeded else "error").inc()

    def queued(self, turn: TurnReference, *, reason: str, ahead: int) -> None:
        """See `TurnEvents.queued`."""
        del turn, ahead
        self._to.waits.labels(reason).inc()

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        """See `TurnEvents.waiting`."""
        del turn, seconds
        self._to.waits.labels(reason).inc()

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        """See `TurnEvents.ended`."""
        self._to.turns.labels(turn.kind, end.outcome, end.code or "").inc()
        if end.cost_usd is not None:
            self._to.cost.labels(end.model or "").inc(end.cost_usd)
        elif end.model is not None:
            self._to.unpriced.labels(end.model).inc()
        if end.lane_seconds is not None:
            self._to.seconds.labels("lane").observe(end.lane_seconds)
        for part, seconds in (
            ("total", end.seconds),
            ("model", end.model_seconds),
            ("tools", end.tool_seconds),
            ("backend", end.backend_seconds),
        ):
            self._to.seconds.labels(part).observe(seconds)
