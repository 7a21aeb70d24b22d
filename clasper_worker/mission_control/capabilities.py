"""Asking a backend what it offers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from clasper_worker.errors import BackendNotFoundError
from clasper_worker.mission_control.transport import CAPABILITIES_PATHS


async def ask_capabilities(ask: Callable[[str], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
    """The backend's answer, from whichever of its two places it has.

    Args:
        ask: makes a GET of a path.

    Raises:
        BackendNotFoundError: it has neither.
        BackendError: by what it answered.
    """
    try:
        return await ask(CAPABILITIES_PATHS[0])
    except BackendNotFoundError:
        return await ask(CAPABILITIES_PATHS[1])
