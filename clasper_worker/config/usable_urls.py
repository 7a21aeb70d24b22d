"""Whether turns can run over the configured broker, result backend and Redis: asked at the start.

kombu and Celery know many more of them. Those that cannot work here are refused by name before
anything starts, instead of by turns that vanish.
"""

from __future__ import annotations

import re

from clasper_worker.config.groups import QueueGroup
from clasper_worker.errors import ConfigurationError

_REDIS = frozenset({"redis", "rediss", "sentinel"})
# Tried: RabbitMQ, and kombu's folders, for a machine that has neither.
_OTHER_BROKERS = frozenset({"amqp", "amqps", "filesystem", "librabbitmq", "py-amqp", "pyamqp"})
_ADVICE = "use redis://, rediss:// or sentinel://, or amqp:// with CLASPER_REDIS_URL"
_NO_BROKERS = {
    "memory": "lives in one process, and workers run in others",
    "sqs": "has no way to tell workers of a cancellation, and an order of its own",
}
_NO_RESULTS = {
    "amqp": "was taken out of Celery",
    "cache+memory": "lives in one process, and workers run in others",
    "disabled": "keeps no results, which callers wait for",
    "memory": "lives in one process, and workers run in others",
    "rpc": "keeps a result for the process that sent the turn alone, so that nobody can ask for it",
}


def refuse_unusable_urls(settings: QueueGroup) -> None:
    """Check that turns can run over what the URLs name.

    Raises:
        ConfigurationError: they cannot; names the variable, the scheme and what to use instead.
    """
    broker = _scheme(settings.celery_broker_url)
    ready_made = re.search(r"[.:]", broker)  # a transport by its class: its owner knows
    if broker not in _REDIS | _OTHER_BROKERS and not ready_made:
        problem = _NO_BROKERS.get(broker, "was never tried as a broker of turns")
        raise _unusable("CELERY_BROKER_URL", broker, problem, _ADVICE)
    results = _scheme(settings.result_backend_url)
    if problem := _NO_RESULTS.get(results, ""):
        raise _unusable(
            "CELERY_RESULT_BACKEND", results, problem, "use redis://, rediss:// or sentinel://"
        )
    named = (settings.clasper_redis_url, settings.celery_result_backend)
    if broker not in _REDIS and not any(url and _scheme(url) in _REDIS for url in named):
        raise ConfigurationError(
            f"CLASPER_REDIS_URL is not set, and the broker ({broker}://) is no Redis: what a turn"
            " has done is noted in one. Set it, and CELERY_RESULT_BACKEND, to redis://HOST:6379/0",
            {"variable": "CLASPER_REDIS_URL"},
        )


def _scheme(url: str) -> str:
    scheme, separator, _ = url.partition("://")
    return (scheme if separator else url).lower()


def _unusable(variable: str, scheme: str, problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(
        f"{variable}: {scheme}:// cannot be used, since it {problem}: {fix}",
        {"variable": variable},
    )
