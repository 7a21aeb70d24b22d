"""Reports the turns that end without their body's having a say: revoked, or stopped for good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from celery.worker import state

from clasper_worker.settings import get_settings
from clasper_worker.task_request import RedactedRequest
from clasper_worker.turn.request import RequestLimits
from clasper_worker.webhooks.outbox import publish
from clasper_worker.webhooks.payload import Failure, ended_turn, failed

log = structlog.get_logger(__name__)

_HARD_LIMIT = Failure(
    "The turn took longer than its hard time limit (CLASPER_TURN_HARD_LIMIT_SEC)", "turn_timeout"
)


class TurnRequest(RedactedRequest):
    """A turn's request, which enqueues ``agent.error`` where the worker itself ends the turn.

    It runs on the consumer's thread and blocks it for the moment that a message takes, as Celery
    does to store the same end. A broker that does not answer then would not take the
    acknowledgement either, so such a failure is logged, and the turn ended all the same.
    """

    def on_timeout(self, soft: bool, timeout: float) -> None:
        """At the hard limit, report it before the turn is acknowledged."""
        if not soft and not state.should_terminate:
            self._report(_HARD_LIMIT)
        super().on_timeout(soft, timeout)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        text = "The turn's message expired before it was run" if expired else None
        self._report(
            Failure(
                text or "The turn was cancelled",
                "expired" if expired else "cancelled",
                {"reason": reason},
                status="cancelled",
            )
        )
        super()._announce_revoked(reason, terminated, signum, expired)

    def _report(self, failure: Failure) -> None:
        arguments = self._kwargs if isinstance(self._kwargs, Mapping) else {}
        if arguments.get("webhook") is None:
            return
        try:
            limits = RequestLimits.from_settings(get_settings())
            turn = ended_turn(arguments, self.id, limits)
            if turn is not None:
                publish(self._app, failed(turn, failure))
        except Exception as exc:  # noqa: BLE001 - the turn's end must not fail of its report
            log.error("webhook.not_enqueued", job_id=self.id, error=type(exc).__name__)  # noqa: TRY400 - its text may be private
