"""The worker's side of a task message, with its shown arguments redacted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from billiard.einfo import ExceptionInfo

from clasper_worker.broker.leases import is_lease_token
from clasper_worker.concurrency.request import CoroutineRequest, is_process_lost
from clasper_worker.errors import WorkerLostError
from clasper_worker.redaction import redacted


class RedactedRequest(CoroutineRequest):
    """A task request whose shown arguments are redacted, whatever the sender's headers say.

    It also ends a task that lost its process twice, under a broker that does not count how often it
    delivers a message: there it would be run, and kill, for ever. Our scheduler does count.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        arguments = self._kwargs if isinstance(self._kwargs, Mapping) else {}
        count = len(self._args) if isinstance(self._args, list | tuple) else 0
        self._argsrepr = f"({count} positional)" if count else "()"
        self._kwargsrepr = redacted(arguments)
        self._request_dict.update(argsrepr=self._argsrepr, kwargsrepr=self._kwargsrepr)

    def on_failure(
        self, exc_info: Any, send_failed_event: bool = True, return_ok: bool = False
    ) -> None:
        """As Celery's; see the class for what is different."""
        if is_process_lost(exc_info) and not self.acknowledged and self._is_last_delivery():
            error = WorkerLostError(
                "The task's process was lost each time that it ran: look for what kills it"
                " (memory, a signal) in the worker's and the system's log",
                {"job_id": self.id},
            )
            self.on_lost_for_good(error)
            exc_info = _info_of(error)
        super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)

    def on_lost_for_good(self, error: WorkerLostError) -> None:
        """Called before the task's end of this kind is stored."""

    def _is_last_delivery(self) -> bool:
        is_counted = is_lease_token(self.message.delivery_tag)
        return not is_counted and bool(self.delivery_info.get("redelivered"))

    def info(self, safe: bool = False) -> dict[str, Any]:
        """What remote control shows (``celery inspect``, Flower): always with the safe forms."""
        del safe
        shown: dict[str, Any] = super().info(safe=True)
        return shown


def _info_of(error: WorkerLostError) -> ExceptionInfo:
    try:
        raise error
    except WorkerLostError:
        return ExceptionInfo()
