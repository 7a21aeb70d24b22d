"""The worker's side of a task message, with its shown arguments redacted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clasper_worker.concurrency.request import CoroutineRequest
from clasper_worker.redaction import redacted


class RedactedRequest(CoroutineRequest):
    """A task request whose shown arguments are redacted, whatever the sender's headers say."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        arguments = self._kwargs if isinstance(self._kwargs, Mapping) else {}
        count = len(self._args) if isinstance(self._args, list | tuple) else 0
        self._argsrepr = f"({count} positional)" if count else "()"
        self._kwargsrepr = redacted(arguments)
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What remote control shows (``celery inspect``, Flower): always with the safe forms."""
        del safe
        shown: dict[str, Any] = super().info(safe=True)
        return shown
