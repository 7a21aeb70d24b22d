"""Logs: events with fields, as JSON for machines or in colours for people.

Contents (messages, replies, prompts) are never logged by this package; what other libraries log
goes through the same pipeline at WARNING and above, since httpx and openai log addresses at INFO.
"""

from __future__ import annotations

import logging
import sys

import structlog
from structlog.typing import Processor

from clasper_worker.settings import Settings

_NOISY = ("httpx2", "httpcore2", "openai", "aiohttp", "asyncio", "kombu", "amqp", "flower")


def configure_logging(settings: Settings, *, level: int | str | None = None) -> None:
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
    console = settings.clasper_log_format == "console" or (
        settings.clasper_log_format == "auto" and sys.stderr.isatty()
    )
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
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *rendering],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level or settings.clasper_log_level)
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
