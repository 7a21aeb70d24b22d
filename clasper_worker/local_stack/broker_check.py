"""Whether a broker that the operator named can be used, asked before anything is started."""

from __future__ import annotations

from typing import Any

import redis
from kombu import Connection
from kombu.exceptions import OperationalError
from redis.backoff import NoBackoff
from redis.retry import Retry

from clasper_worker.broker.schedule import SCHEDULED
from clasper_worker.errors import ConfigurationError, StackError
from clasper_worker.local_stack.redis_binary import MINIMUM_VERSION, version_numbers
from clasper_worker.sentinel import blocking_client, shown_url
from clasper_worker.settings import Settings

_ANSWER_SECONDS = 5.0


def check_broker(url: str, settings: Settings) -> None:
    """Connect once to the broker at this URL.

    Args:
        url: of any kind.
        settings: say what the URL of Sentinels does not.

    Raises:
        ConfigurationError: a URL of Sentinels cannot be read.
        StackError: it does not answer, refuses us, or is a Redis older than 6.2.
    """
    shown = shown_url(url)
    try:
        if url.startswith(SCHEDULED):
            _check_redis(url, shown, settings)
        else:
            with Connection(url, connect_timeout=_ANSWER_SECONDS) as connection:
                connection.ensure_connection(
                    max_retries=1, interval_start=0, timeout=_ANSWER_SECONDS
                )
    except (StackError, ConfigurationError):
        raise
    except Exception as exc:  # each transport has its own kinds
        raise StackError(
            f"The broker in CELERY_BROKER_URL ({shown}) cannot be used: {_reason(exc)}. "
            f"Start it, correct the URL, or unset it to let `clasper up` run a Redis of its own.",
            {"variable": "CELERY_BROKER_URL"},
        ) from exc


def _check_redis(url: str, shown: str, settings: Settings) -> None:
    client: Any = blocking_client(
        url,
        settings,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        client.ping()
        version = str(client.info("server").get("redis_version", ""))
    finally:
        client.close()
    if version and version_numbers(version) < MINIMUM_VERSION:
        raise StackError(
            f"The broker in CELERY_BROKER_URL ({shown}) is Redis {version}; Celery needs 6.2 "
            f"or newer.",
            {"variable": "CELERY_BROKER_URL", "version": version},
        )


def _reason(exc: Exception) -> str:
    """The kind of failure; the text of some has the URL, and so the password, in it."""
    if isinstance(exc, redis.AuthenticationError):
        return "it refuses the password"
    if isinstance(exc, redis.TimeoutError | TimeoutError):
        return "it does not answer in time"
    if isinstance(exc, redis.ConnectionError | OperationalError | OSError):
        return "no connection"
    return type(exc).__name__
