"""A turn within its soft time limit: what is left to do when the time is up."""

from __future__ import annotations

import asyncio

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.concurrency.interrupt import SoftLimitScope
from clasper_worker.errors import ClasperError, LeaseLostError, TurnTimeoutError
from clasper_worker.turn.deliver import finish
from clasper_worker.turn.dependencies import TurnDependencies, TurnProgress
from clasper_worker.turn.identity import TurnIdentity
from clasper_worker.turn.journal import Outcome
from clasper_worker.turn.request import SendRequest
from clasper_worker.turn.result import TurnResult
from clasper_worker.turn.run import run_turn

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
