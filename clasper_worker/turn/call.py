"""What one job asks for: a turn's request, read once, and where its end is reported."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.wellformed import measure
from clasper_worker.errors import InvalidRequestError
from clasper_worker.observability.trace_context import TraceContext
from clasper_worker.turn.models import TurnIdentity, identify_turn
from clasper_worker.turn.request import RequestLimits, SendRequest, Webhook, parse_send_request


class TurnCall:
    """One job of ``clasper.send``. Its request is read when that is first asked for, and once.

    Args:
        job_id: the Celery task's id.
        arguments: the task's keyword arguments, as sent; what is no mapping asks for nothing.
        mark: which notification it answers (`periodic.notification`); None: it answers none.
        trace: the caller's; None where it has none.
    """

    def __init__(
        self,
        job_id: str,
        arguments: Any,
        mark: object = None,
        trace: TraceContext | None = None,
    ) -> None:
        self.job_id = job_id
        self.arguments: Mapping[str, Any] = arguments if isinstance(arguments, Mapping) else {}
        self.mark = mark
        self._trace = trace

    @property
    def request(self) -> SendRequest:
        """What is asked for.

        Raises:
            InvalidRequestError: it cannot be run; names every bad field.
        """
        if isinstance(self.read, InvalidRequestError):
            raise self.read
        return self.read

    @cached_property
    def read(self) -> SendRequest | InvalidRequestError:
        """What is asked for, or why that cannot be run."""
        try:
            return parse_send_request(self.arguments, RequestLimits.from_settings(get_settings()))
        except InvalidRequestError as exc:
            return exc

    @cached_property
    def identity(self) -> TurnIdentity:
        """The turn that is asked for, and this run of it.

        Raises:
            InvalidRequestError: see `request`.
        """
        request = self.request
        return identify_turn(request.user_id, request.idempotency_key, self.job_id, self._trace)

    @cached_property
    def webhook(self) -> Webhook | None:
        """Where the end is reported; None: nowhere.

        A request that cannot be run may still have a webhook that can: its sender wants to know.
        """
        given = self.arguments.get("webhook")
        if given is None:
            return None
        if not isinstance(self.read, InvalidRequestError):
            return self.read.webhook
        _, problems = measure(given)
        try:
            return None if problems else Webhook.model_validate(given)
        except ValidationError:
            return None
