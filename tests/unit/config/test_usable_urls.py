"""Brokers, result backends and our own Redis that turns can and cannot run over."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.errors import ConfigurationError
from clasper_worker.startup_checks import refuse_contradictions

REDIS = "redis://r:6379/0"


@pytest.mark.parametrize(
    ("broker", "given"),
    [
        (REDIS, {}),
        ("rediss://r", {}),
        ("sentinel://a:1;sentinel://b:1", {}),
        ("amqp://r", {"clasper_redis_url": REDIS, "celery_result_backend": REDIS}),
        ("amqp://r", {"celery_result_backend": REDIS}),
        ("pyamqp://r", {"clasper_redis_url": REDIS, "celery_result_backend": "db+sqlite:///x"}),
        ("some.package:Transport://r", {"clasper_redis_url": REDIS}),
    ],
)
def test_what_turns_run_over_is_let_through(
    settings_of: Callable[..., Settings], broker: str, given: dict[str, str]
) -> None:
    refuse_contradictions(settings_of(celery_broker_url=broker, **given))


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"celery_broker_url": "memory://"}, "CELERY_BROKER_URL: memory:// cannot be used"),
        ({"celery_broker_url": "sqs://"}, "CELERY_BROKER_URL: sqs:// cannot be used"),
        ({"celery_broker_url": "sqla+sqlite:///x"}, "CELERY_BROKER_URL: sqla.sqlite:// cannot be"),
        ({"celery_broker_url": "amqp://r"}, "CLASPER_REDIS_URL is not set"),
        (
            {"celery_broker_url": "amqp://r", "celery_result_backend": "db+sqlite:///x"},
            "CLASPER_REDIS_URL is not set",
        ),
        (
            {"celery_broker_url": "amqp://r", "celery_result_backend": "rpc://"},
            "CELERY_RESULT_BACKEND: rpc:// cannot be used",
        ),
        (
            {"celery_broker_url": REDIS, "celery_result_backend": "cache+memory://"},
            "CELERY_RESULT_BACKEND: cache.memory:// cannot be used",
        ),
    ],
)
def test_what_no_turn_can_run_over_is_refused_by_name_before_anything_starts(
    settings_of: Callable[..., Settings], given: dict[str, str], problem: str
) -> None:
    with pytest.raises(ConfigurationError, match=problem) as caught:
        refuse_contradictions(settings_of(**given))
    assert "redis://" in str(caught.value)
