"""Prometheus figures of turns: a listener on their events."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram

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


def _families(registry: CollectorRegistry | None) -> _Families:
    to = {} if registry is None else {"registry": registry}
    return _Families(
        turns=Counter("clasper_turns_total", "Runs of turns by how they ended.",
                      ["kind", "outcome", "code"], **to),
        seconds=Histogram(
            "clasper_turn_seconds",
            "Where the time of turns went: queue, model, tools, backend; total is without queue.",
            ["part"],
            buckets=_BUCKETS,
            **to,
        ),
        model_calls=Counter("clasper_model_calls_total", "Answered model calls.",
                            ["provider", "model"], **to),
        tokens=Counter("clasper_tokens_total",
                       "Tokens; cached ones are a part of the input.",
                       ["provider", "model", "direction"], **to),
        cost=Counter("clasper_cost_usd_total", "USD spent on model calls of known price.",
                     ["provider", "model"], **to),
        unpriced=Counter("clasper_unpriced_model_calls_total",
                         "Model calls whose price or usage is not known.",
                         ["provider", "model"], **to),
        tool_calls=Counter("clasper_tool_calls_total", "Tool calls by tool and outcome.",
                           ["tool", "outcome"], **to),
        resumed=Counter("clasper_turns_resumed_total",
                        "Runs that went on from what an earlier run had journaled.", **to),
        waits=Counter("clasper_turn_waits_total", "Times that a turn waited, by reason.",
                      ["reason"], **to),
    )  # fmt: skip


@lru_cache(maxsize=1)
def _of_the_process() -> _Families:
    return _families(None)


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
        if answer.cost_usd is None:
            self._to.unpriced.labels(*whom).inc()
        else:
            self._to.cost.labels(*whom).inc(answer.cost_usd)

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

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        """See `TurnEvents.waiting`."""
        del turn, seconds
        self._to.waits.labels(reason).inc()

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        """See `TurnEvents.ended`."""
        self._to.turns.labels(turn.kind, end.outcome, end.code or "").inc()
        for part, seconds in (
            ("total", end.seconds),
            ("model", end.model_seconds),
            ("tools", end.tool_seconds),
            ("backend", end.backend_seconds),
        ):
            self._to.seconds.labels(part).observe(seconds)
