"""One agent turn, from request to posted reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.errors import (
    BackendConflictError,
    BackendNotFoundError,
    StateUnavailableError,
    TurnConflictError,
    TurnTimeoutError,
)
from clasper_worker.llm.catalogue import Tier
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.llm.messages import ChatModel, TokenUsage
from clasper_worker.mission_control.client import AgentBackend, MissionControl
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.mission_control.tokens import AgentIdentity
from clasper_worker.prompt.smart_context import SmartContext
from clasper_worker.prompt.snapshot import WorkspaceSnapshot
from clasper_worker.tools.registry import Toolbox, ToolContext
from clasper_worker.turn.fit import ModelWindow, unknown_window, window_warning
from clasper_worker.turn.history import load_history
from clasper_worker.turn.identity import TurnIdentity
from clasper_worker.turn.journal import Opening, Outcome, TurnJournal
from clasper_worker.turn.lease import FencedModel, Lease, NoLease
from clasper_worker.turn.ledger import TurnLedger, ledger_key, request_digest
from clasper_worker.turn.loop import Answer, converse
from clasper_worker.turn.opening import PromptSettings, turn_prompt
from clasper_worker.turn.request import DEFAULT_PLAN_TITLE, SendRequest
from clasper_worker.turn.resolve import ResolvedTask, resolve_task
from clasper_worker.turn.result import TurnResult

REPLY_STEP = "reply"
"""The step whose key the turn's one outcome is posted under, be it the reply or a timeout."""

_REPLY_CUT = "the reply was cut at the model's limit for one reply"

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class TurnSettings:
    """What the operator configured about turns.

    Attributes:
        max_steps: model calls per turn at most.
        history_limit: messages read from the backend at most.
        default_task: title of the task for requests that name none.
        prompt: about prompts.
        soft_limit_seconds: how long a turn may take, all its runs together; None where whoever
            runs it sees to that.
    """

    max_steps: int = 16
    history_limit: int = 50
    default_task: str | None = None
    prompt: PromptSettings = field(default_factory=PromptSettings)
    soft_limit_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class TurnDependencies:
    """The collaborators of a turn.

    ``workspace`` gives what a workspace says now, by the name that the request asks for and the
    user; ``smart`` chooses from it, where it is not None; ``window`` is what a tier's models take.
    """

    mission_control: MissionControl
    ledger: TurnLedger
    tasks: TaskFinder
    toolbox: Toolbox
    workspace: Callable[[str | None, str], WorkspaceSnapshot]
    model: Callable[[Tier], ChatModel]
    now: Callable[[], datetime]
    settings: TurnSettings
    window: Callable[[Tier], ModelWindow] = unknown_window
    smart: SmartContext | None = None
    lease: Lease = field(default_factory=NoLease)


@dataclass(slots=True)
class TurnProgress:
    """How far a turn has come, for whoever has to end it early."""

    task: ResolvedTask | None = None
    journal: TurnJournal | None = None


async def run_turn(
    request: SendRequest,
    turn: TurnIdentity,
    deps: TurnDependencies,
    progress: TurnProgress | None = None,
) -> TurnResult:
    """Decide the turn's outcome and post it; what earlier runs did is not done again.

    A turn that has ended returns its result without any request.

    Raises:
        SoftTimeLimitExceeded: this run and earlier ones together took longer than the limit.
        ClasperError: the turn failed; nothing empty was posted, and what was posted carries keys
            under which a repetition of the turn posts nothing twice.
    """
    progress = progress or TurnProgress()
    journal = progress.journal = await TurnJournal.open(
        deps.ledger, ledger_key(request, turn), request_digest(request)
    )
    if journal.result is not None:
        return journal.result
    if journal.has_timed_out:
        raise _timed_out()
    outcome = journal.outcome
    if outcome is None:
        if journal.opening is not None:
            progress.task = journal.opening.task
        async with _time_left(journal, deps.settings.soft_limit_seconds):
            outcome = await _think(request, turn, deps, journal, progress)
    return await finish(request, turn, deps, journal, outcome)


@asynccontextmanager
async def _time_left(journal: TurnJournal, limit_seconds: float | None) -> AsyncIterator[None]:
    """Count what earlier runs of the turn took towards its soft limit."""
    if limit_seconds is None or not journal.spent_before:
        yield
        return
    left = limit_seconds - journal.spent_before
    if left <= 0:
        raise SoftTimeLimitExceeded(limit_seconds)
    try:
        async with asyncio.timeout(left) as scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise SoftTimeLimitExceeded(limit_seconds) from None
        raise


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
    with _about_the_task(request, deps):
        await _deliver(request, turn, deps, outcome)
    if outcome.kind == "timed_out":
        await _settle(journal, None)
        raise _timed_out()
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


async def _settle(journal: TurnJournal, result: TurnResult | None) -> TurnResult | None:
    try:
        return await journal.settle(result)
    except StateUnavailableError:
        # All is posted: a later run would only post the same again, under the same keys.
        log.warning("turn.not_settled")
        return result


def _timed_out() -> TurnTimeoutError:
    return TurnTimeoutError(
        "The turn took longer than its soft time limit (CLASPER_TURN_SOFT_LIMIT_SEC)",
        {"posted": True},  # that it did
    )


def _backend(request: SendRequest, deps: TurnDependencies) -> AgentBackend:
    identity = AgentIdentity(request.user_id, request.role)
    return deps.mission_control.as_agent(identity, deps.lease.confirm)


async def _think(
    request: SendRequest,
    turn: TurnIdentity,
    deps: TurnDependencies,
    journal: TurnJournal,
    progress: TurnProgress,
) -> Outcome:
    """Resolve the task, build the prompt, converse with the model; go on where a run stopped."""
    workspace = deps.workspace(request.metadata.workspace, request.user_id)
    backend = _backend(request, deps)
    seen = journal.opening
    task = progress.task = (
        seen.task
        if seen is not None
        else await resolve_task(
            request, backend, deps.tasks, default_title=deps.settings.default_task
        )
    )
    with _about_the_task(request, deps):
        history = await load_history(
            request,
            backend,
            task.id,
            limit=request.history_limit(deps.settings.history_limit),
            seen=seen,
        )
    opening = seen or Opening(task, deps.now(), history.end)
    journal.begin(opening)
    prompt = await turn_prompt(
        request,
        workspace,
        smart=deps.smart,
        settings=deps.settings.prompt,
        now=opening.now,
        task_title=task.title,
        tool_names=deps.toolbox.names,
        history=history.messages,
    )
    tier = request.metadata.model_tier
    window, model = deps.window(tier), FencedModel(deps.model(tier), deps.lease)
    messages, fitted = prompt.fit(history.messages, deps.toolbox.tokens, window)

    def context_for(step: str) -> ToolContext:
        key = turn_step_key(request.user_id, turn.turn_id, step)
        return ToolContext(backend, deps.tasks, task.id, key)

    while True:
        answer = await converse(
            model,
            messages,
            deps.toolbox,
            context_for,
            journal,
            max_steps=deps.settings.max_steps,
        )
        first, last = answer.replies[0], answer.replies[-1]
        window.counter.learn(fitted.estimate, first.usage.prompt)
        used = last.usage.prompt + last.usage.completion
        full = window_warning(fitted, used, window, deps.settings.prompt.warn_from_percent)
        decided = _outcome(task, answer, full)
        outcome = await journal.conclude(len(answer.replies), last, decided)
        if outcome is not None:
            return outcome
        # Another run's reply to this step was recorded first: the conversation follows that one.


@contextmanager
def _about_the_task(request: SendRequest, deps: TurnDependencies) -> Iterator[None]:
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
    backend = _backend(request, deps)

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


def _outcome(task: ResolvedTask, answer: Answer, full: str | None) -> Outcome:
    used = sum((reply.usage for reply in answer.replies), TokenUsage())
    cut = answer.replies[-1].finish_reason == "length"
    return Outcome(
        kind="reply",
        task_id=task.id,
        text=answer.text,
        usage=Usage(
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            total_tokens=used.prompt + used.completion,
        ),
        cost=turn_cost(answer.replies),
        tool_calls=answer.tool_calls,
        warning="; ".join(filter(None, (_REPLY_CUT if cut else None, full))) or None,
    )
