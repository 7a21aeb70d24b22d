"""``clasper.send``: one agent turn, and what its end asks for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import structlog
from celery.exceptions import Ignore

from clasper_worker.celery import app
from clasper_worker.completion.completion import Completion, or_again
from clasper_worker.config.names import SEND_TASK
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.delivery import TurnDelivery
from clasper_worker.errors import (
    ClasperError,
    InvalidRequestError,
    LeaseLostError,
    TurnCancelledError,
)
from clasper_worker.observability.stopwatch import Stopwatch, start_stopwatch
from clasper_worker.observability.trace_context import TraceContext, enter_trace
from clasper_worker.periodic.notification import refuse_malformed
from clasper_worker.process import DOOM, GROUPS, RUNTIME
from clasper_worker.tasks.base import ClasperTask, turn_log_context, typed_errors
from clasper_worker.tasks.cancelled import fence_of
from clasper_worker.turn.call import TurnCall
from clasper_worker.turn.collect import CollectedTurns
from clasper_worker.turn.models import TurnResult
from clasper_worker.turn.rollback import rolled_back
from clasper_worker.turn.route_check import refuse_misrouted
from clasper_worker.turn.run import TurnRun
from clasper_worker.turn.validation import invalid_request

log = structlog.get_logger(__name__)


@app.task(
    base=ClasperTask,
    bind=True,
    name=SEND_TASK,
    Request="clasper_worker.completion.worker_ends:TurnRequest",
)
async def send(self: ClasperTask, *args: Any, **kwargs: Any) -> TurnResult:
    """One agent turn; the keyword arguments are the send request (contract Part 2)."""
    # Bound for this coroutine alone: each runs in a context of its own.
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    delivery = TurnDelivery.of(self.request)
    call = TurnCall(self.request.id, kwargs, delivery.mark, delivery.trace)
    if delivery.trace is not None:
        enter_trace(replace(delivery.trace, parent_id=TraceContext().parent_id))
    watch = start_stopwatch(delivery.waited, delivery.behind)
    doom, groups = await DOOM.get(), await GROUPS.get()

    async def part(job_ids: tuple[str, ...]) -> None:
        await groups.part(delivery.token, job_ids)

    completion = Completion(app)
    group = CollectedTurns(delivery.collected, app.backend, part=part, ends=completion)
    try:
        async with (
            doom.of_failures(delivery.token),
            typed_errors("turn", lambda: {"duration": watch.told()}),
        ):
            delivery.check_verdict()
            if args:
                raise _positional()
            result = await _run_turn(call, delivery, group, watch)
    except LeaseLostError:
        raise Ignore("another worker has the turn") from None
    except TurnCancelledError:
        raise  # `ClasperTask` ends it as revoked
    except ClasperError as exc:
        await completion.failed(call, exc)
        with or_again("turn.end_not_told"):
            await group.fail(exc)
        raise
    await completion.succeeded(call, result)
    with or_again("turn.end_not_told"):
        await group.succeed(result)
    return result


def _positional() -> InvalidRequestError:
    return invalid_request(
        [
            {
                "field": "args",
                "problem": "the fields came as positional arguments",
                "fix": "send them as kwargs",
            }
        ]
    )


async def _run_turn(
    call: TurnCall, delivery: TurnDelivery, group: CollectedTurns, watch: Stopwatch
) -> TurnResult:
    refuse_malformed(call.mark)
    try:
        refuse_misrouted(delivery.route, call.arguments)
        request, turn = call.request, call.identity
    except InvalidRequestError:
        await group.stand_apart()
        raise
    structlog.contextvars.bind_contextvars(
        **turn_log_context(turn, request.user_id, request.role, request.session)
    )
    runtime = await RUNTIME.get()
    request = await group.join(call, runtime.turns.ledger)
    lease = await fence_of(delivery, SEND_TASK, call.job_id, call.arguments)
    turns = replace(runtime.turns, lease=lease)
    kind = "send" if call.mark is None else "notification"
    stopped = delivery.rolls_back
    before = await rolled_back(stopped, request.user_id, turns.ledger, app.backend)
    run = TurnRun(request, turn, turns, kind=kind, run=delivery.number, rolled_back=before)
    result = await run.within_limits()
    log.info("turn.completed", **_told_of(result), duration=watch.told())
    if get_settings().clasper_log_content:
        log.info("turn.content", message=request.message, response=result.response)
    return result


def _told_of(result: TurnResult) -> dict[str, Any]:
    """What the log tells of a result: numbers and names."""
    return {
        "task_id": result.task_id,
        "tool_calls": result.tool_calls,
        "model": result.cost.model,
        "tokens": {
            "prompt": result.usage.prompt_tokens,
            "completion": result.usage.completion_tokens,
            "total": result.usage.total_tokens,
        },
        "cost": result.cost.totalCost,
        "currency": result.cost.currency,
    }
