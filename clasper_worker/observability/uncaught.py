"""What nobody caught, in the log's form: errors that end a thread or the process, and warnings.

Python writes them to stderr line by line, which a program that reads a log in JSON cannot. Of an
error its type and where it arose are told; its text may quote what people wrote.
"""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any

import structlog

log = structlog.get_logger(__name__)

_PLACES = 12


def log_what_nobody_caught() -> None:
    """Have this process's uncaught errors and warnings logged; hooks of others stay."""
    logging.captureWarnings(capture=True)
    if sys.excepthook is sys.__excepthook__:
        sys.excepthook = _process_ended
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _thread_ended
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _ignored


def _process_ended(
    kind: type[BaseException], exc: BaseException, trace: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
        return
    log.critical("process.died", **_told(kind, trace))


def _thread_ended(arguments: threading.ExceptHookArgs) -> None:
    if arguments.exc_type is SystemExit:
        return
    name = arguments.thread.name if arguments.thread else None
    log.critical("thread.died", thread=name, **_told(arguments.exc_type, arguments.exc_traceback))


def _ignored(arguments: Any) -> None:
    log.error("error.ignored", **_told(arguments.exc_type, arguments.exc_traceback))


def _told(kind: type[BaseException], trace: TracebackType | None) -> dict[str, Any]:
    frames = traceback.extract_tb(trace)
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    return {"error": kind.__name__, "places": places[-_PLACES:]}
