"""What a cancelled turn had stored, for the one it was cancelled for (busy policy ``rollback``)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from celery import states

from clasper_worker.engine.redis.faults import redis_fault, typed_error
from clasper_worker.turn.journal import made_by
from clasper_worker.turn.journal_store import TurnLedger, key_of_turn
from clasper_worker.turn.models import RolledBack


async def rolled_back(
    stopped: Sequence[str] | None, user_id: str, ledger: TurnLedger, backend: Any
) -> RolledBack | None:
    """What the turn had stored that was cancelled for this one; None where none was.

    Args:
        stopped: the job and the turn that were to be cancelled (`TurnDelivery.rolls_back`).
        user_id: whose both turns are.
        ledger: of all turns.
        backend: Celery's result backend: the job may have ended before it could be cancelled.

    Raises:
        StateUnavailableError: Redis does not answer.
    """
    if stopped is None:
        return None
    job_id, turn_id = stopped
    try:
        state = await asyncio.to_thread(backend.get_state, job_id)
    except Exception as exc:
        if redis_fault(exc) is None:
            raise
        raise typed_error(exc, "CELERY_RESULT_BACKEND") from exc
    if state != states.REVOKED:
        return None
    made = await made_by(ledger, key_of_turn(user_id, turn_id))
    return RolledBack(turn_id=turn_id, messages=made["messages"], documents=made["documents"])
