"""The remote-control commands that our workers add to Celery's."""

from __future__ import annotations

from typing import Any

import celery
from celery.worker.control import inspect_command

from clasper_worker import __version__
from clasper_worker.config.names import VERSIONS_COMMAND


@inspect_command(name=VERSIONS_COMMAND)
def versions(state: Any, **kwargs: Any) -> dict[str, str]:
    """The versions of a worker's program and of its Celery."""
    del state, kwargs
    return {"clasper": __version__, "celery": celery.__version__}
