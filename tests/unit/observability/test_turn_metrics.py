from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from clasper_worker.observability.events import ModelAnswer, TurnEnd, TurnReference
from clasper_worker.observability.turn_metrics import TurnMetrics

TURN = TurnReference("t1", "j1", "0" * 32, "u-secret", "user:u-secret:writer", "writer")


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def metrics(registry: CollectorRegistry) -> TurnMetrics:
    return TurnMetrics(registry)


def answer(**changes: Any) -> ModelAnswer:
    facts: dict[str, Any] = {
        "step": 1,
        "provider": "openai",
        "model": "gpt",
        "seconds": 0.5,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_tokens": 2,
        "tool_calls": 0,
        "finish_reason": "stop",
    }
    return ModelAnswer(**(facts | changes))


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    return registry.get_sample_value(name, labels)


def test_turns_are_counted_by_kind_outcome_and_code(
    metrics: TurnMetrics, registry: CollectorRegistry
) -> None:
    metrics.ended(TURN, TurnEnd("ok"))
    metrics.ended(TURN, TurnEnd("failed", "empty_reply"))
    name = "clasper_turns_total"
    assert value(registry, name, kind="send", outcome="ok", code="") == 1
    assert value(registry, name, kind="send", outcome="failed", code="empty_reply") == 1


def test_the_time_of_a_turn_is_split_by_where_it_went(
    metrics: TurnMetrics, registry: CollectorRegistry
) -> None:
    metrics.started(TURN, resumed=False, queue_seconds=3.0)
    metrics.ended(
        TURN,
        TurnEnd(
            "ok",
            seconds=10.0,
            model_seconds=7.0,
            tool_seconds=2.0,
            backend_seconds=0.5,
            lane_seconds=1.5,
        ),
    )
    name = "clasper_turn_seconds_sum"
    parts = {
        part: value(registry, name, part=part)
        for part in ("queue", "lane", "total", "model", "tools", "backend")
    }
    assert parts == {
        "queue": 3.0,
        "lane": 1.5,
        "total": 10.0,
        "model": 7.0,
        "tools": 2.0,
        "backend": 0.5,
    }


def test_tokens_are_counted_by_model(metrics: TurnMetrics, registry: CollectorRegistry) -> None:
    metrics.model_answered(TURN, answer())
    metrics.model_answered(TURN, answer())
    of = {"provider": "openai", "model": "gpt"}
    assert value(registry, "clasper_model_calls_total", **of) == 2
    assert value(registry, "clasper_tokens_total", **of, direction="input") == 20
    assert value(registry, "clasper_tokens_total", **of, direction="output") == 10
    assert value(registry, "clasper_tokens_total", **of, direction="cached") == 4


def test_the_cost_of_turns_is_counted_and_turns_without_a_price_apart(
    metrics: TurnMetrics, registry: CollectorRegistry
) -> None:
    metrics.ended(TURN, TurnEnd("ok", cost_usd=0.25, model="gpt"))
    metrics.ended(TURN, TurnEnd("ok", cost_usd=0.5, model="gpt"))
    metrics.ended(TURN, TurnEnd("ok", cost_usd=None, model="own"))
    metrics.ended(TURN, TurnEnd("failed", "model_unavailable"))
    assert value(registry, "clasper_cost_usd_total", model="gpt") == 0.75
    assert value(registry, "clasper_unpriced_turns_total", model="own") == 1
    assert value(registry, "clasper_cost_usd_total", model="own") is None


def test_tool_calls_are_counted_by_tool_and_outcome(
    metrics: TurnMetrics, registry: CollectorRegistry
) -> None:
    for succeeded in (True, True, False):
        metrics.tool_answered(
            TURN, step=1, index=0, tool="list_tasks", seconds=0.1, chars=1, succeeded=succeeded
        )
    name = "clasper_tool_calls_total"
    assert value(registry, name, tool="list_tasks", outcome="ok") == 2
    assert value(registry, name, tool="list_tasks", outcome="error") == 1


def test_a_resumed_run_and_a_wait_are_counted(
    metrics: TurnMetrics, registry: CollectorRegistry
) -> None:
    metrics.started(TURN, resumed=True, queue_seconds=None)
    metrics.waiting(TURN, reason="rate_limit", seconds=2.0)
    metrics.queued(TURN, reason="session", ahead=3)
    assert value(registry, "clasper_turns_resumed_total") == 1
    assert value(registry, "clasper_turn_waits_total", reason="rate_limit") == 1
    assert value(registry, "clasper_turn_waits_total", reason="session") == 1


def test_no_figure_names_a_user_a_session_or_a_turn(
    metrics: TurnMetrics, registry: CollectorRegistry
) -> None:
    metrics.started(TURN, resumed=True, queue_seconds=1.0)
    metrics.model_answered(TURN, answer())
    metrics.ended(TURN, TurnEnd("ok"))
    text = generate_latest(registry).decode()
    assert "u-secret" not in text
    assert "t1" not in text


def test_the_figures_of_the_process_are_made_once_however_many_listeners_there_are() -> None:
    TurnMetrics()
    TurnMetrics()  # a second registration of one name would raise
