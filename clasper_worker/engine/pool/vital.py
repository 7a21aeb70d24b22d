"""Threads that a worker cannot do without: where one ends by a fault, the worker ends, loudly.

A worker that went on without its result writer, its event loop or its lease keeper would take turns
and never end one, and nobody would see why. Its process manager starts another instead, and the
turns go on there.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from celery.worker import state as worker_state

logger = logging.getLogger(__name__)

EXIT_CODE = 70
"""What the worker's process ends with (sysexits' EX_SOFTWARE)."""

_GIVE_BACK_SECONDS = 30.0  # for giving back what runs; then the process ends all the same


class _Worker:
    """The Celery worker of this process; None in other processes."""

    controller: Any = None


def is_worker(controller: Any) -> None:
    """Note that this process is a worker, and Celery's controller of it."""
    _Worker.controller = controller


@contextmanager
def vital(what: str) -> Iterator[None]:
    """End the worker if what the block does, on a thread of its own, ends by an exception.

    In a process that is no worker that is only logged.

    Args:
        what: the thread, for the log.
    """
    try:
        yield
    except BaseException:
        logger.critical("%s has ended by a fault", what, exc_info=True)
        if _Worker.controller is not None:
            end_worker(what)


def end_worker(what: str) -> None:
    """Have the worker end soon, with `EXIT_CODE`; what it runs goes back to the queue."""
    logger.critical("the worker ends: it cannot go on without %s", what)
    _Worker.controller.exitcode = EXIT_CODE
    worker_state.should_terminate = EXIT_CODE
    last_resort = threading.Timer(_GIVE_BACK_SECONDS, os._exit, (EXIT_CODE,))
    last_resort.daemon = True
    last_resort.start()
