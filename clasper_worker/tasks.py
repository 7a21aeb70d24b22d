"""Every Celery task: read the arguments, call one function, let its typed error through."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import structlog
from celery.exceptions import Ignore, Reject, Retry

from clasper_worker.broker.doom import LEASE_HEADER, Doom
from clasper_worker.broker.schedule import open_schedule
from clasper_worker.celery import app
from clasper_worker.concurrency.resources import LoopLocal
from clasper_worker.concurrency.task import CoroutineTask
from clasper_worker.errors import ClasperError, UnexpectedError
from clasper_worker.runtime import Runtime
from clasper_worker.settings import get_settings
from clasper_worker.turn.identity import TurnIdentity, identify_turn
from clasper_worker.turn.limits import run_within_limits
from clasper_worker.turn.request import RequestLimits, invalid_request, parse_send_request
from clasper_worker.turn.result import TurnResult

log = structlog.get_logger(__name__)


async def _open_runtime() -> Runtime:
    return await Runtime.open(get_settings())


RUNTIME: LoopLocal[Runtime] = LoopLocal(_open_runtime, close=Runtime.close)


async def _open_doom() -> Doom:
    return Doom(open_schedule(get_settings()))


DOOM: LoopLocal[Doom] = LoopLocal(_open_doom, close=Doom.close)


class ClasperTask(CoroutineTask):
    """What our tasks have in common: redacted arguments, and errors of ours as expected ends."""

    abstract = True
    Request = "clasper_worker.task_request:RedactedRequest"
    throws = (ClasperError,)


@app.task(
    base=ClasperTask,
    bind=True,
    name="clasper.send",
)
async def send(self: ClasperTask, *args: Any, **kwargs: Any) -> TurnResult:
    """One agent turn; the keyword arguments are the send request (contract Part 2)."""
    # Bound for this coroutine alone: each runs in a context of its own.
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    doom = await DOOM.get()
    async with doom.of_failures(self.request.get(LEASE_HEADER)), _typed_errors():
        if args:
            raise invalid_request(
                [
                    {
                        "field": "args",
                        "problem": "the fields came as positional arguments",
                        "fix": "send them as kwargs",
                    }
                ]
            )
        settings = get_settings()
        request = parse_send_request(kwargs, RequestLimits.from_settings(settings))
        turn = identify_turn(request.user_id, request.idempotency_key, self.request.id)
        structlog.contextvars.bind_contextvars(**_log_context(turn, request.user_id))
        runtime = await RUNTIME.get()
        result = await run_within_limits(request, turn, runtime.turns)
        log.info("turn.completed", task_id=result.task_id, tool_calls=result.tool_calls)
        if settings.clasper_log_content:
            log.info("turn.content", message=request.message, response=result.response)
        return result


def _log_context(turn: TurnIdentity, user_id: str) -> dict[str, str]:
    return {
        "turn_id": turn.turn_id,
        "job_id": turn.job_id,
        "trace_id": turn.trace_id,
        "user_id": user_id,
    }


@asynccontextmanager
async def _typed_errors() -> AsyncIterator[None]:
    """Let errors of ours out without their causes, and any other as an `UnexpectedError`.

    Celery stores and shows an exception with its causes, and those may quote what was said: a
    provider's answer that repeats the prompt, a value in a KeyError.
    """
    try:
        yield
    except ClasperError as exc:
        log.warning("turn.failed", error=exc.code, reason=str(exc))
        raise exc.with_traceback(None) from None
    except (Retry, Ignore, Reject):
        raise
    except Exception as exc:  # noqa: BLE001 - a fault must not carry private text out
        frames = traceback.extract_tb(exc.__traceback__)
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        log.error("turn.unexpected_error", error=type(exc).__name__, places=places[-8:])  # noqa: TRY400 - its text may be private
        raise UnexpectedError(
            f"Unexpected {type(exc).__name__}: a fault in the worker; its log names the place",
            {"error": type(exc).__name__},
        ) from None
