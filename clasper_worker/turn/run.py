"""One agent turn, from request to posted reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.engine.pool.soft_limit import SoftLimitScope
from clasper_worker.errors import ClasperError, ContextLengthError, LeaseLostError, TurnTimeoutError
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.llm.messages import TokenUsage
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.tools.registry import ToolContext
from clasper_worker.turn.context import TurnDependencies, TurnProgress
from clasper_worker.turn.deliver import about_the_task, finish, timed_out
from clasper_worker.turn.fence import FencedModel
from clasper_worker.turn.fit import window_by_refusal, window_warning
from clasper_worker.turn.journal import Opening, Outcome, TurnJournal
from clasper_worker.turn.journal_store import ledger_key, request_digest
from clasper_worker.turn.loop import Answer, converse
from clasper_worker.turn.models import ResolvedTask, TurnIdentity, TurnResult
from clasper_worker.turn.opening import turn_prompt
from clasper_worker.turn.request import SendRequest
from clasper_worker.turn.task_thread import load_history, resolve_task

_REPLY_CUT = "the reply was cut at the model's limit for one reply"


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
        raise timed_out()
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


async def _think(
    request: SendRequest,
    turn: TurnIdentity,
    deps: TurnDependencies,
    journal: TurnJournal,
    progress: TurnProgress,
) -> Outcome:
    """Resolve the task, build the prompt, converse with the model; go on where a run stopped."""
    workspace = deps.workspace(request.metadata.workspace, request.user_id)
    backend = deps.backend(request)
    seen = journal.opening
    task = progress.task = (
        seen.task
        if seen is not None
        else await resolve_task(
            request, backend, deps.tasks, default_title=deps.settings.default_task
        )
    )
    with about_the_task(request, deps):
        history = await load_history(
            request,
            backend,
            task.id,
            limit=request.history_limit(deps.settings.history_limit),
            seen=seen,
        )
    toolbox = deps.toolbox.where(await backend.offered())
    opening = seen or Opening(task, deps.now(), history.end)
    journal.begin(opening)
    prompt = await turn_prompt(
        request,
        workspace,
        smart=deps.smart,
        settings=deps.settings.prompt,
        now=opening.now,
        task_title=task.title,
        tool_names=toolbox.names,
        history=history.messages,
    )
    tier = request.metadata.model_tier
    window, model = deps.window(tier), FencedModel(deps.model(tier), deps.lease)
    messages, fitted = prompt.fit(history.messages, toolbox.tokens, window)
    is_trimmed = False

    def context_for(step: str) -> ToolContext:
        key = turn_step_key(request.user_id, turn.turn_id, step)
        return ToolContext(backend, deps.tasks, task.id, key)

    while True:
        try:
            answer = await converse(
                model,
                messages,
                toolbox,
                context_for,
                journal,
                max_steps=deps.settings.max_steps,
            )
        except ContextLengthError as exc:
            # Once more, with less history; what the turn has done until then is in its journal.
            smaller = window_by_refusal(fitted, exc.details)
            trimmed = prompt.fit(history.messages, toolbox.tokens, smaller)
            if is_trimmed or trimmed[1].dropped <= fitted.dropped:
                raise
            is_trimmed, (messages, fitted) = True, trimmed
            continue
        first, last = answer.replies[0], answer.replies[-1]
        window.counter.learn(fitted.estimate, first.usage.prompt)
        used = last.usage.prompt + last.usage.completion
        full = window_warning(fitted, used, window, deps.settings.prompt.warn_from_percent)
        decided = _outcome(task, answer, full)
        outcome = await journal.conclude(len(answer.replies), last, decided)
        if outcome is not None:
            return outcome

        # Another run's reply to this step was recorded first: the conversation follows that one.


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


log = structlog.get_logger(__name__)
GRACE_SECONDS = 20.0
TIMED_OUT_TEXT = (
    "I ran out of time and stopped before I had an answer. What was done until then stays done;"
    " please ask again, perhaps for a smaller part."
)


async def run_within_limits(
    request: SendRequest,
    turn: TurnIdentity,
    deps: TurnDependencies,
    *,
    grace_seconds: float = GRACE_SECONDS,
) -> TurnResult:
    """Run the turn; at its soft time limit stop it, say so in its task, and fail.

    Reply and timeout are outcomes of one turn, of which the ledger keeps the first, posted under
    one key: a task gets one of the two, never both, whenever the limit strikes. A run of the turn
    at another time ends the same way.

    Raises:
        TurnTimeoutError: the soft time limit passed before there was a reply.
        LeaseLostError: another run has taken the turn over, and is the one to end it.
        ClasperError: the turn failed.
    """
    progress = TurnProgress()
    try:
        async with SoftLimitScope():
            return await run_turn(request, turn, deps, progress)
    except SoftTimeLimitExceeded:
        log.warning("turn.timed_out")
    if progress.task is not None and progress.journal is not None:
        outcome = Outcome(kind="timed_out", task_id=progress.task.id, text=TIMED_OUT_TEXT)
        try:
            async with asyncio.timeout(grace_seconds):
                # The reply, where that was decided just before.
                outcome = await progress.journal.decide(outcome)
                return await finish(request, turn, deps, progress.journal, outcome)
        except (TurnTimeoutError, LeaseLostError):
            raise
        except (ClasperError, TimeoutError) as exc:
            log.warning("turn.timeout_not_posted", error=type(exc).__name__)
    raise TurnTimeoutError(
        "The turn took longer than its soft time limit (CLASPER_TURN_SOFT_LIMIT_SEC)"
    )
