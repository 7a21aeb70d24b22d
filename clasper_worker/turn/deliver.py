"""Posting what a turn was decided to end with: the same again, however often it is done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from clasper_worker.errors import (
    BackendConflictError,
    BackendNotFoundError,
    StateUnavailableError,
    TurnConflictError,
    TurnTimeoutError,
)
from clasper_worker.llm.cost import turn_cost
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.observability.events import UNHEARD, ReportedTurn
from clasper_worker.turn.context import TurnDependencies
from clasper_worker.turn.journal import Outcome, TurnJournal
from clasper_worker.turn.models import RolledBack, TurnIdentity, TurnResult
from clasper_worker.turn.request import DEFAULT_PLAN_TITLE, SendRequest

REPLY_STEP = "reply"
"""The step whose key the turn's one outcome is posted under, be it the reply or a timeout."""

log = structlog.get_logger(__name__)


class Posts:
    """What a run posts to the backend.

    Args:
        request: the turn's.
        identity: the turn's ids.
        deps: its collaborators.
        reported: who is told of each post.
    """

    def __init__(
        self,
        request: SendRequest,
        identity: TurnIdentity,
        deps: TurnDependencies,
        reported: ReportedTurn = UNHEARD,
    ) -> None:
        self._request = request
        self._identity = identity
        self._deps = deps
        self._reported = reported

    async def finish(
        self, journal: TurnJournal, outcome: Outcome, rolled_back: RolledBack | None = None
    ) -> TurnResult:
        """Post a decided outcome, again or for the first time, and end the turn accordingly.

        Raises:
            TurnTimeoutError: the outcome is that the time ran out.
            TurnConflictError: another outcome was posted before, and is not known here any more.
            BackendError: the backend failed or refused it.
        """
        with about_the_task(self._request, self._deps):
            await self._post(outcome)
        if outcome.kind == "timed_out":
            await _settle(journal, None)
            raise timed_out()
        result = TurnResult(
            turn_id=self._identity.turn_id,
            task_id=outcome.task_id,
            trace_id=self._identity.trace_id,
            response=outcome.text,
            usage=outcome.usage,
            cost=outcome.cost or turn_cost(()),
            tool_calls=outcome.tool_calls,
            context_warning=outcome.warning,
            rolled_back=rolled_back,
        )
        return await _settle(journal, result) or result

    async def _post(self, outcome: Outcome) -> None:
        is_reply = outcome.kind == "reply"
        text = self._request.visible(outcome.text) if is_reply else outcome.text
        if text is None:
            return
        await self._message(outcome.task_id, text, "reply" if is_reply else "timeout")
        if is_reply and self._request.metadata.kickoff_plan:
            await self._plan(outcome.task_id, text)

    async def _message(self, task_id: str, text: str, what: str) -> None:
        backend = self._deps.backend(self._request)
        began = time.monotonic()
        try:
            await backend.post_message(
                task_id=task_id, content=text, idempotency_key=self._key(REPLY_STEP)
            )
        except BackendConflictError as exc:
            raise TurnConflictError(
                "An earlier run of this turn has posted its reply, and what it was is not known"
                " here any more; nothing was posted twice",
                {"turn_id": self._identity.turn_id, "posted": True},
            ) from exc
        self._posted(what, began)

    async def _plan(self, task_id: str, text: str) -> None:
        backend = self._deps.backend(self._request)
        began = time.monotonic()
        try:
            await backend.create_document(
                task_id=task_id,
                title=self._request.metadata.plan_title or DEFAULT_PLAN_TITLE,
                content=text,
                doc_type="plan",
                idempotency_key=self._key("plan"),
            )
        except BackendConflictError:
            log.info("turn.plan_already_posted", turn_id=self._identity.turn_id)
            return
        self._posted("plan", began)

    def _posted(self, what: str, began: float) -> None:
        seconds = time.monotonic() - began
        self._reported.events.posted(self._reported.turn, what=what, seconds=seconds)

    def _key(self, step: str) -> str:
        return turn_step_key(self._request.user_id, self._identity.turn_id, step)


@contextmanager
def about_the_task(request: SendRequest, deps: TurnDependencies) -> Iterator[None]:
    """Where the backend knows no such task, say which one the request named, or forget it."""
    try:
        yield
    except BackendNotFoundError as exc:
        title = request.task_title or deps.settings.default_task
        if request.task_id is None:
            if title:  # remembered, and gone since: the next turn looks it up anew
                deps.tasks.forget(request.user_id, title)
            raise
        raise BackendNotFoundError(
            f"The backend has no task {request.task_id!r} for this user: check task_id, or leave"
            " it out and give task_title",
            {**exc.details, "field": "task_id"},
        ) from exc


async def _settle(journal: TurnJournal, result: TurnResult | None) -> TurnResult | None:
    try:
        return await journal.settle(result)
    except StateUnavailableError:
        # All is posted: a later run would only post the same again, under the same keys.
        log.warning("turn.not_settled")
        return result


def timed_out() -> TurnTimeoutError:
    """The error of a turn that ran out of time and has said so in its task."""
    return TurnTimeoutError(
        "The turn took longer than its soft time limit (CLASPER_TURN_SOFT_LIMIT_SEC)",
        {"posted": True},  # that it did
    )
