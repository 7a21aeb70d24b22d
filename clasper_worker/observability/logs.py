"""Logs: events with fields, as JSON for machines or in colours for people.

Contents (messages, replies, prompts) are never logged by this package; what other libraries log
goes through the same pipeline at WARNING and above, since httpx and openai log addresses at INFO.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

import redis
import structlog
from kombu.exceptions import OperationalError
from stamina.instrumentation import (
    PrometheusOnRetryHook,
    RetryDetails,
    RetryHook,
    RetryHookFactory,
    set_on_retry_hooks,
)
from structlog.typing import Processor

from clasper_worker.config.groups import ObservabilityGroup
from clasper_worker.errors import ClasperError
from clasper_worker.observability.uncaught import log_what_nobody_caught

_NOISY = ("httpx2", "httpcore2", "openai", "aiohttp", "asyncio", "kombu", "amqp", "flower")


# Jobs that tick every few seconds: what they did they log themselves, when it was anything.
_TELL_OF_TASKS = ("celery.worker.strategy", "celery.app.trace", "celery.beat")


# Of redis-py, kombu, asyncio and the system.
_GONE = (
    redis.ConnectionError,
    redis.TimeoutError,
    OperationalError,
    ConnectionError,
    TimeoutError,
)


_CELERYS = ("celery.", "kombu.", "redbeat.")


def _follows_loss(exc: BaseException | None) -> bool:
    """Whether it arose while a lost connection was handled, as when Celery restarts its parts."""
    while exc is not None:
        exc = exc.__cause__ or exc.__context__
        if isinstance(exc, _GONE):
            return True
    return False


class _NoTicks(logging.Filter):
    """Leaves out that a tick was sent, came and went well; not that it failed.

    Whoever asks for DEBUG is told of each.
    """

    tasks: frozenset[str] = frozenset()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno > logging.INFO or logging.getLogger().isEnabledFor(logging.DEBUG):
            return True
        told = record.args.values() if isinstance(record.args, Mapping) else record.args or ()
        return not any(isinstance(value, str) and value in self.tasks for value in told)


class _LostConnections(logging.Filter):
    """Of a server that went away one line is told, not where in a library that was noticed."""

    def filter(self, record: logging.LogRecord) -> bool:
        exc = record.exc_info[1] if record.exc_info else None
        if isinstance(exc, _GONE) or (record.name.startswith(_CELERYS) and _follows_loss(exc)):
            record.msg, record.args = f"{record.getMessage()} ({type(exc).__name__})", None
            record.exc_info = record.exc_text = None
        return True


_NOTICKS = _NoTicks()  # one, which a logger takes once however often it is given


class _Lines:
    """Writes the lines of the module of that name where a handler of `logging` writes its own.

    They share the handler's lock, so that lines do not mix and a fork does not find it taken.
    """

    def __init__(self, name: str, handler: logging.StreamHandler[TextIO]) -> None:
        self.name = name
        self._handler = handler

    def msg(self, line: str) -> None:
        handler = self._handler
        handler.acquire()
        try:
            handler.stream.write(line + handler.terminator)
            handler.flush()
        except (OSError, ValueError):
            pass  # the stream is gone: nothing to say it to, and no reason to fail a turn
        finally:
            handler.release()

    debug = info = warning = error = critical = msg


def leave_out_ticks(tasks: Iterable[str]) -> None:
    """Do not log the runs that went well of these tasks, which would hide the turns'."""
    _NOTICKS.tasks |= frozenset(tasks)


def configure_logging(settings: ObservabilityGroup, *, level: int | str | None = None) -> None:
    """Send every log line of this process to stderr in one form (``CLASPER_LOG_FORMAT``).

    Args:
        settings: the form and the level.
        level: a level to use instead of ``CLASPER_LOG_LEVEL``, as ``logging`` takes it.
    """
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    console = not writes_json(settings)
    rendering: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(),
                pad_event_to=0,
                # Plain: the pretty ones print local variables, which hold messages and keys.
                exception_formatter=structlog.dev.plain_traceback,
            )
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_LostConnections())
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    level = level or settings.clasper_log_level
    # Our own lines do not go through `logging`, which would make each of them twice over.
    structlog.configure(
        processors=[*shared, *rendering],
        logger_factory=lambda *names: _Lines(str(names[0]) if names else "", handler),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    if not console:
        log_what_nobody_caught()
    for name in _TELL_OF_TASKS:
        logging.getLogger(name).addFilter(_NOTICKS)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
    set_on_retry_hooks([PrometheusOnRetryHook, RetryHookFactory(_tell_of_retries)])


def say_as_json(text: str, *_: Any) -> None:
    """What Celery's worker says of signals, in a line of JSON.

    Written at once: a signal may come while a line is being logged.
    """
    told = {"event": text, "level": "warning", "timestamp": datetime.now(UTC).isoformat()}
    with contextlib.suppress(OSError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{json.dumps(told)}\n".encode())


def writes_json(settings: ObservabilityGroup) -> bool:
    """Whether this process logs in JSON."""
    form = settings.clasper_log_format
    return form == "json" or (form == "auto" and not sys.stderr.isatty())


def _tell_of_retries() -> RetryHook:
    """Instead of stamina's own lines: these quote errors, and those what a provider answered."""
    log = structlog.get_logger(__name__)

    def tell(details: RetryDetails) -> None:
        cause: object = details.caused_by
        stands_for = getattr(cause, "error", None)  # of a signal to the retry loop
        known = stands_for if isinstance(stands_for, ClasperError) else cause
        log.warning(
            "retry.scheduled",
            error=known.code if isinstance(known, ClasperError) else type(cause).__name__,
            reason=str(known) if isinstance(known, ClasperError) else None,
            status=getattr(details.caused_by, "status_code", None),
            number=details.retry_num,
            wait=round(details.wait_for, 2),
            waited=round(details.waited_so_far, 2),
        )

    return tell
