"""Posting what a turn was decided to end with: the same again, however often it is done."""

from __future__ import annotations

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
from clasper_worker.turn.context import TurnDependencies
from clasper_worker.turn.journal import Outcome, TurnJournal
from clasper_worker.turn.models import TurnIdentity, TurnResult
from clasper_worker.turn.request import DEFAULT_PLAN_TITLE, SendRequest

REPLY_STEP = "reply"
"""The step whose key the turn's one outcome is posted under, be it the reply or a timeout."""

log = structlog.get_logger(__name__)


async def finish(
    request: SendRequest,
    turn: TurnIdentity,
    deps: TurnDependencies,
    journal: TurnJournal,
    outcome: Outcome,
) -> TurnResult:
    """Post a decided outcome, again or for the first time, and end the turn accordingly.

    Raises:
        TurnTimeoutError: the outcome is that the time ran out.
        TurnConflictError: another outcome was posted before, and is not known here any more.
        BackendError: the backend failed or refused it.
    """
    with about_the_task(request, deps):
        await _deliver(request, turn, deps, outcome)
    if outcome.kind == "timed_out":
        await _settle(journal, None)
        raise timed_out()
    result = TurnResult(
        turn_id=turn.turn_id,
        task_id=outcome.task_id,
        trace_id=turn.trace_id,
        response=outcome.text,
        usage=outcome.usage,
        cost=outcome.cost or turn_cost(()),
        tool_calls=outcome.tool_calls,
        context_warning=outcome.warning,
    )
    return await _settle(journal, result) or result


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


async def _deliver(
    request: SendRequest, turn: TurnIdentity, deps: TurnDependencies, outcome: Outcome
) -> None:
    text = request.visible(outcome.text) if outcome.kind == "reply" else outcome.text
    if text is None:
        return
    backend = deps.backend(request)

    def key(step: str) -> str:
        return turn_step_key(request.user_id, turn.turn_id, step)

    try:
        await backend.post_message(
            task_id=outcome.task_id, content=text, idempotency_key=key(REPLY_STEP)
        )
    except BackendConflictError as exc:
        raise TurnConflictError(
            "An earlier run of this turn has posted its reply, and what it was is not known here"
            " any more; nothing was posted twice",
            {"turn_id": turn.turn_id, "posted": True},
        ) from exc
    if not request.metadata.kickoff_plan or outcome.kind != "reply":
        return
    try:
        await backend.create_document(
            task_id=outcome.task_id,
            title=request.metadata.plan_title or DEFAULT_PLAN_TITLE,
            content=text,
            doc_type="plan",
            idempotency_key=key("plan"),
        )
    except BackendConflictError:
        log.info("turn.plan_already_posted", turn_id=turn.turn_id)


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
