"""A turn within its soft time limit: what is left to do when the time is up."""

from __future__ import annotations

import asyncio

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.concurrency.interrupt import SoftLimitScope
from clasper_worker.errors import BackendConflictError, ClasperError, TurnTimeoutError
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.mission_control.tokens import AgentIdentity
from clasper_worker.turn.identity import TurnIdentity
from clasper_worker.turn.request import SendRequest
from clasper_worker.turn.result import TurnResult
from clasper_worker.turn.run import REPLY_STEP, TurnDependencies, TurnProgress, run_turn

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

    The message goes out under the key of the reply, so that a task gets one of the two, never
    both, whenever the limit strikes.

    Raises:
        TurnTimeoutError: the soft time limit passed.
        ClasperError: the turn failed.
    """
    progress = TurnProgress()
    try:
        async with SoftLimitScope():
            return await run_turn(request, turn, deps, progress)
    except SoftTimeLimitExceeded:
        log.warning("turn.timed_out")
    if progress.task is not None:
        try:
            async with asyncio.timeout(grace_seconds):
                await _post_timed_out(request, turn, deps, progress.task.id)
        except BackendConflictError:
            log.info("turn.reply_already_posted")
        except (ClasperError, TimeoutError) as exc:
            log.warning("turn.timeout_not_posted", error=type(exc).__name__)
    raise TurnTimeoutError(
        "The turn took longer than its soft time limit (CLASPER_TURN_SOFT_LIMIT_SEC)"
    )


async def _post_timed_out(
    request: SendRequest, turn: TurnIdentity, deps: TurnDependencies, task_id: str
) -> None:
    backend = deps.mission_control.as_agent(AgentIdentity(request.user_id, request.role))
    key = turn_step_key(request.user_id, turn.turn_id, REPLY_STEP)
    await backend.post_message(task_id=task_id, content=TIMED_OUT_TEXT, idempotency_key=key)
