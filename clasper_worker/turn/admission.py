"""What is checked where a turn is asked for, beyond the form of its request.

What could only fail is refused at once, rather than queued to become a dead letter. Whoever asks
may be configured otherwise than the workers: it goes by its own settings, and what it surely knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.public_addresses import AddressPolicy
from clasper_worker.errors import WebhookRefusedError
from clasper_worker.turn.request import RequestLimits, SendRequest, parse_send_request
from clasper_worker.turn.validation import fix_of, invalid_request
from clasper_worker.turn.webhook_target import address_without_dns, parse_target

DEFAULT_WORKSPACE = "default"


@dataclass(frozen=True, slots=True)
class Admission:
    """What may be asked for here.

    Attributes:
        limits: caps on a request; keep them equal to the workers'.
        default_task: title of the task for requests that name none, which are refused without one.
        workspaces: names that requests may give; empty where they are not known here.
        webhooks: where webhooks may go; None where that is not known here.
    """

    limits: RequestLimits = RequestLimits()  # noqa: RUF009 - frozen
    default_task: str | None = None
    workspaces: frozenset[str] = frozenset()
    webhooks: AddressPolicy | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> Self:
        """As configured here."""
        return cls(
            limits=RequestLimits.from_settings(settings),
            default_task=settings.clasper_default_task,
            workspaces=frozenset(settings.clasper_workspaces),
            webhooks=AddressPolicy(
                allow_private=settings.clasper_webhook_allow_private,
                allowed_hosts=settings.clasper_webhook_allowed_hosts,
            ),
        )

    def admit(self, data: Mapping[str, Any]) -> tuple[SendRequest, Mapping[str, Any]]:
        """Check a send request.

        Returns:
            The request, and its fields as they are to be sent: as they were given, and with the
            default task's title where they name no task, so that it holds for every worker.

        Raises:
            InvalidRequestError: names every bad field, its problem and the fix.
        """
        request = parse_send_request(data, self.limits)
        problems = list(self._problems(request))
        if problems:
            raise invalid_request(problems)
        if request.task_id is not None or request.task_title is not None:
            return request, data
        return request, {**data, "task_title": self.default_task}

    def _problems(self, request: SendRequest) -> Iterator[dict[str, str]]:
        if request.task_id is None and request.task_title is None and not self.default_task:
            yield _problem("task_id", "is missing, and so is task_title: no task to post to")
        workspace = request.metadata.workspace
        if self.workspaces and workspace not in {None, DEFAULT_WORKSPACE, *self.workspaces}:
            yield _problem("metadata.workspace", "is not one of CLASPER_WORKSPACES")
        if request.webhook is not None and self.webhooks is not None:
            host = parse_target(request.webhook.url).host
            address = address_without_dns(host)
            try:
                self.webhooks.check(host, [] if address is None else [address])
            except WebhookRefusedError:
                yield _problem("webhook.url", "leads to an address that is not public")


def _problem(field: str, problem: str) -> dict[str, str]:
    return {"field": field, "problem": problem, "fix": fix_of(field)}
