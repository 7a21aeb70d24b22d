"""Every Celery task: read the arguments, call one function, let its typed error through."""

from __future__ import annotations

import time
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import structlog
from celery.exceptions import Ignore, Reject, Retry
from celery.result import AsyncResult

from clasper_worker.broker.collected import Groups
from clasper_worker.broker.delivery import TurnDelivery
from clasper_worker.broker.doom import Doom
from clasper_worker.broker.schedule import open_schedule
from clasper_worker.celery import app
from clasper_worker.concurrency.resources import LoopLocal
from clasper_worker.concurrency.task import CoroutineTask
from clasper_worker.errors import (
    BackendError,
    ClasperError,
    InvalidRequestError,
    LaneFullError,
    LeaseLostError,
    SessionBusyError,
    StateUnavailableError,
    UnexpectedError,
    WebhookUnavailableError,
)
from clasper_worker.jobs.acknowledge import DELIVERED_TASK, pause_after
from clasper_worker.jobs.agents import Agent
from clasper_worker.jobs.heartbeat import HeartbeatRules, run_heartbeat, skipped
from clasper_worker.jobs.jobs import Jobs
from clasper_worker.jobs.notification import NotificationKey, notification_of, refuse_malformed
from clasper_worker.jobs.standup import StandupRules, run_standup
from clasper_worker.local_time import parse_time_of_day
from clasper_worker.redaction import redacted
from clasper_worker.runtime import Runtime
from clasper_worker.settings import get_settings
from clasper_worker.turn.collected import CollectedTurns
from clasper_worker.turn.compact import CompactResult, compact, parse_compact_request
from clasper_worker.turn.identity import TurnIdentity, identify_turn
from clasper_worker.turn.limits import run_within_limits
from clasper_worker.turn.request import RequestLimits, parse_send_request
from clasper_worker.turn.request_problems import invalid_request
from clasper_worker.turn.result import TurnResult
from clasper_worker.webhooks.courier import Courier
from clasper_worker.webhooks.outbox import WEBHOOK_TASK, Outbox, publish
from clasper_worker.webhooks.payload import Delivery, Failure, completed, ended_turn, failed
from clasper_worker.webhooks.schedule import RetrySchedule

log = structlog.get_logger(__name__)


async def _open_runtime() -> Runtime:
    return await Runtime.open(get_settings())


async def _open_courier() -> Courier:
    return Courier.from_settings(get_settings())


async def _open_outbox() -> Outbox:
    return Outbox(lambda delivery: publish(app, delivery))


RUNTIME: LoopLocal[Runtime] = LoopLocal(_open_runtime, close=Runtime.close)
COURIER: LoopLocal[Courier] = LoopLocal(_open_courier, close=Courier.close)
OUTBOX: LoopLocal[Outbox] = LoopLocal(_open_outbox, close=Outbox.close)


async def _open_doom() -> Doom:
    return Doom(open_schedule(get_settings()))


DOOM: LoopLocal[Doom] = LoopLocal(_open_doom, close=Doom.close)


async def _open_groups() -> Groups:
    return Groups(open_schedule(get_settings()))


GROUPS: LoopLocal[Groups] = LoopLocal(_open_groups, close=Groups.close)


async def _open_jobs() -> Jobs:
    return Jobs.open(get_settings())


JOBS: LoopLocal[Jobs] = LoopLocal(_open_jobs, close=Jobs.close)


class ClasperTask(CoroutineTask):
    """What our tasks have in common: redacted arguments, and errors of ours as expected ends."""

    abstract = True
    Request = "clasper_worker.task_request:RedactedRequest"
    throws = (ClasperError,)

    def apply_async(
        self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any
    ) -> AsyncResult:
        """As Celery's, for a retry too; the sender's own events show the arguments redacted."""
        options.setdefault("argsrepr", f"({len(args)} positional)" if args else "()")
        options.setdefault("kwargsrepr", redacted(kwargs or {}))
        return super().apply_async(args, kwargs, *rest, **options)


@app.task(
    base=ClasperTask,
    bind=True,
    name="clasper.send",
    Request="clasper_worker.webhooks.turn_request:TurnRequest",
)
async def send(self: ClasperTask, *args: Any, **kwargs: Any) -> TurnResult:
    """One agent turn; the keyword arguments are the send request (contract Part 2)."""
    # Bound for this coroutine alone: each runs in a context of its own.
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    delivery = TurnDelivery.of(self.request)
    doom, groups = await DOOM.get(), await GROUPS.get()

    async def part(job_ids: tuple[str, ...]) -> None:
        await groups.part(delivery.token, job_ids)
        delivery.forget(job_ids)

    group = CollectedTurns(delivery.collected, app.backend, part=part)
    try:
        async with doom.of_failures(delivery.token), _typed_errors("turn"):
            delivery.check_verdict()
            result = await _run_turn(self.request.id, delivery, group, args, kwargs)
    except LeaseLostError:
        raise Ignore("another worker has the turn") from None
    except ClasperError as exc:
        await _report_end(self.request.id, kwargs, exc)
        async with _or_again():
            await group.fail(exc, _report_end)
        raise
    await _report_end(self.request.id, kwargs, result)
    async with _or_again():
        await group.succeed(result, _report_end)
    return result


@app.task(
    base=ClasperTask,
    bind=True,
    name=WEBHOOK_TASK,
    max_retries=None,  # the schedule says when it is enough
    soft_time_limit=20,
    time_limit=30,
)
async def webhook(self: ClasperTask, **kwargs: Any) -> dict[str, Any]:
    """One attempt to deliver one webhook (`clasper_worker.webhooks`)."""
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    doom = await DOOM.get()
    lease = TurnDelivery.of(self.request).token
    async with doom.of_failures(lease), _typed_errors("webhook"):
        delivery = Delivery.parse(kwargs)
        structlog.contextvars.bind_contextvars(turn_id=delivery.turn_id, user_id=delivery.user_id)
        attempt = (self.request.retries or 0) + 1
        courier = await COURIER.get()
        try:
            answer = await courier.deliver(delivery)
        except WebhookUnavailableError as exc:
            schedule = RetrySchedule.from_settings(get_settings())
            pause = schedule.pause(attempt, retry_after=exc.details.get("retry_after"))
            if pause is None:
                raise
            log.warning("webhook.retried", attempt=attempt, pause=round(pause, 1), reason=str(exc))
            cause = exc.with_traceback(None)
        else:
            log.info("webhook.delivered", attempt=attempt, http_status=answer.status)
            return {"status": "delivered", "http_status": answer.status, "attempts": attempt}
        raise self.retry(exc=cause, countdown=pause)


async def _run_turn(
    job_id: str,
    delivery: TurnDelivery,
    group: CollectedTurns,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> TurnResult:
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
    refuse_malformed(kwargs)
    settings = get_settings()
    limits = RequestLimits.from_settings(settings)
    try:
        request = parse_send_request(kwargs, limits)
    except InvalidRequestError:
        await group.stand_apart()
        raise
    turn = identify_turn(request.user_id, request.idempotency_key, job_id)
    structlog.contextvars.bind_contextvars(**_log_context(turn, request.user_id))
    runtime = await RUNTIME.get()
    request = await group.join(request, turn, runtime.turns.ledger, limits, _report_end)
    turns = replace(runtime.turns, lease=delivery.lease())
    result = await run_within_limits(request, turn, turns)
    log.info("turn.completed", task_id=result.task_id, tool_calls=result.tool_calls)
    if settings.clasper_log_content:
        log.info("turn.content", message=request.message, response=result.response)
    return result


@asynccontextmanager
async def _or_again() -> AsyncIterator[None]:
    """Give the turn's message back where not all who wait for its end could be told.

    The turn's next run posts nothing again, and tells them.
    """
    try:
        yield
    except StateUnavailableError as exc:
        log.error("turn.end_not_told", reason=str(exc))  # noqa: TRY400 - no fault of ours
        raise Reject(str(exc), requeue=True) from None


async def _report_end(job_id: str, kwargs: dict[str, Any], end: TurnResult | ClasperError) -> None:
    """See to what the turn's end asks for, before the turn is acknowledged.

    That is the webhook, if it has one, and the acknowledgement of the notification that it answers.
    The first is enqueued, the second given to the backend, or enqueued where that does not take it.

    Raises:
        Reject: the broker did not take it, so that it keeps the turn's own message. The turn's
            next run posts nothing again, and tries to enqueue it again.
    """
    notification = notification_of(kwargs)
    if notification is not None:
        try:
            acknowledgements = (await JOBS.get()).acknowledgements
            if isinstance(end, ClasperError) and not end.details.get("posted"):
                await acknowledgements.failed(notification, end)
            else:
                await acknowledgements.answered(notification, (await RUNTIME.get()).internal)
        except StateUnavailableError as exc:
            log.error("dispatch.acknowledgement_not_enqueued", reason=str(exc))  # noqa: TRY400 - no fault of ours
            raise Reject(str(exc), requeue=True) from None
    if kwargs.get("webhook") is None:
        return
    turn = ended_turn(kwargs, job_id, RequestLimits.from_settings(get_settings()))
    if turn is None:
        return
    if isinstance(end, TurnResult):
        delivery = completed(turn, end)
    else:
        delivery = failed(turn, Failure.of(end))
    try:
        await (await OUTBOX.get()).put(delivery)
    except StateUnavailableError as exc:
        log.error("webhook.not_enqueued", delivery_id=delivery.delivery_id, reason=str(exc))  # noqa: TRY400 - no fault of ours
        raise Reject(str(exc), requeue=True) from None


@app.task(base=ClasperTask, bind=True, name="clasper.compact")
async def compact_history(self: ClasperTask, **kwargs: Any) -> CompactResult:
    """Summarise older history to one message (contract Part 2, ``clasper.compact``)."""
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    async with _typed_errors("compact"):
        limits = RequestLimits.from_settings(get_settings())
        request = parse_compact_request(kwargs, limits)
        turns = (await RUNTIME.get()).turns
        result = await compact(request, turns.model("cheap"), turns.window("cheap"))
        log.info("compact.done", before=result.original_count, after=result.compacted_count)
        return result


@app.task(base=ClasperTask, bind=True, name="clasper.dispatch")
async def dispatch(self: ClasperTask) -> dict[str, Any]:
    """One poll of undelivered notifications (`clasper_worker.jobs.dispatch`)."""
    async with _typed_errors("dispatch"):
        backend = (await RUNTIME.get()).internal
        dispatcher = (await JOBS.get()).dispatcher(backend)
        if not backend.has_token:
            return {"status": "unconfigured", "variable": "INTERNAL_API_TOKEN"}
        return asdict(await dispatcher.poll(self.request.id))


@app.task(base=ClasperTask, bind=True, name=DELIVERED_TASK, max_retries=None)
async def delivered(self: ClasperTask, *, user_id: str, notification_id: str) -> dict[str, Any]:
    """Acknowledge one notification whose reply is posted; tried again until that is taken."""
    structlog.contextvars.bind_contextvars(user_id=user_id, notification_id=notification_id)
    async with _typed_errors("dispatch"):
        backend = (await RUNTIME.get()).internal
        acknowledgements = (await JOBS.get()).acknowledgements
        attempt = (self.request.retries or 0) + 1
        try:
            await acknowledgements.acknowledge(backend, NotificationKey(user_id, notification_id))
        except BackendError as exc:
            pause = pause_after(attempt)
            if pause is None:
                raise  # the next poll finds it still listed
            log.warning("dispatch.acknowledgement_retried", attempt=attempt, reason=str(exc))
            cause = exc.with_traceback(None)
        else:
            return {"status": "delivered", "attempts": attempt}
        raise self.retry(exc=cause, countdown=pause)


@app.task(base=ClasperTask, bind=True, name="clasper.heartbeat")
async def heartbeat(self: ClasperTask, **kwargs: Any) -> dict[str, Any]:
    """One heartbeat of one agent (`clasper_worker.jobs.heartbeat`)."""
    async with _typed_errors("heartbeat"):
        agent = _agent(kwargs)
        turn = identify_turn(agent.user_id, None, self.request.id)
        structlog.contextvars.bind_contextvars(**_log_context(turn, agent.user_id))
        delivery = TurnDelivery.of(self.request)
        try:
            delivery.check_verdict()
        except (SessionBusyError, LaneFullError):
            return skipped("busy").as_json()
        slots = (await JOBS.get()).slots
        note = f"heartbeat:{turn.turn_id}"
        if "slot" in kwargs and await slots.read([note]) != [None]:
            return skipped("repeated").as_json()
        deps = replace((await RUNTIME.get()).turns, lease=delivery.lease())
        rules = HeartbeatRules.from_settings(get_settings())
        try:
            report = await run_heartbeat(
                agent, turn, deps, rules, any_time=bool(kwargs.get("any_time"))
            )
        except LeaseLostError:
            raise Ignore("another worker has the heartbeat") from None
        if "slot" in kwargs:
            await slots.write([note], "done", get_settings().clasper_heartbeat_interval_sec + 60)
        return report.as_json()


@app.task(base=ClasperTask, bind=True, name="clasper.standup")
async def standup(self: ClasperTask, **kwargs: Any) -> dict[str, Any]:
    """The day's standup of one agent (`clasper_worker.jobs.standup`)."""
    async with _typed_errors("standup"):
        agent = _agent(kwargs)
        structlog.contextvars.bind_contextvars(job_id=self.request.id, user_id=agent.user_id)
        report = await run_standup(
            agent,
            (await RUNTIME.get()).turns,
            (await JOBS.get()).slots,
            StandupRules.from_settings(get_settings()),
            holder=self.request.id,
            day=_day(kwargs.get("slot")),
        )
        return report.as_json()


@app.task(base=ClasperTask, bind=True, name="clasper.heartbeats")
async def heartbeats(self: ClasperTask) -> dict[str, Any]:
    """A tick: enqueue the heartbeats that have come due (`clasper_worker.jobs.fan_out`)."""
    async with _typed_errors("heartbeat"):
        jobs, settings = await JOBS.get(), get_settings()
        agents = await jobs.roster((await RUNTIME.get()).internal).agents() or ()
        interval = settings.clasper_heartbeat_interval_sec
        tick = await jobs.fan_out.heartbeats(
            agents, interval, now=time.time(), holder=self.request.id
        )
        return asdict(tick)


@app.task(base=ClasperTask, bind=True, name="clasper.standups")
async def standups(self: ClasperTask) -> dict[str, Any]:
    """A tick: enqueue the standups that have come due (`clasper_worker.jobs.fan_out`)."""
    async with _typed_errors("standup"):
        jobs, settings = await JOBS.get(), get_settings()
        agents = await jobs.roster((await RUNTIME.get()).internal).agents() or ()
        at = parse_time_of_day(settings.clasper_standup_at)
        zone = StandupRules.from_settings(settings).timezone
        tick = await jobs.fan_out.standups(
            agents, at, zone, now=time.time(), holder=self.request.id
        )
        return asdict(tick)


def _agent(kwargs: dict[str, Any]) -> Agent:
    try:
        return Agent.of(kwargs)
    except ValueError as exc:
        field, _, problem = str(exc).partition(": ")
        fix = "send user_id and agent_role, and timezone as an IANA name"
        raise invalid_request([{"field": field, "problem": problem, "fix": fix}]) from None


def _day(slot: Any) -> date | None:
    """The day that a tick named; None where it was not a tick that asked."""
    try:
        return None if slot is None else date.fromisoformat(slot)
    except (TypeError, ValueError):
        fix = "send a date such as 2026-03-29, or leave it out"
        raise invalid_request([{"field": "slot", "problem": "is no date", "fix": fix}]) from None


def _log_context(turn: TurnIdentity, user_id: str) -> dict[str, str]:
    return {
        "turn_id": turn.turn_id,
        "job_id": turn.job_id,
        "trace_id": turn.trace_id,
        "user_id": user_id,
    }


@asynccontextmanager
async def _typed_errors(what: str) -> AsyncIterator[None]:
    """Let errors of ours out without their causes, and any other as an `UnexpectedError`.

    Celery stores and shows an exception with its causes, and those may quote what was said: a
    provider's answer that repeats the prompt, a value in a KeyError.
    """
    expected, unexpected = f"{what}.failed", f"{what}.unexpected_error"
    try:
        yield
    except ClasperError as exc:
        log.warning(expected, error=exc.code, reason=str(exc))
        raise exc.with_traceback(None) from None
    except (Retry, Ignore, Reject):
        raise
    except Exception as exc:  # noqa: BLE001 - a fault must not carry private text out
        frames = traceback.extract_tb(exc.__traceback__)
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        log.error(unexpected, error=type(exc).__name__, places=places[-8:])  # noqa: TRY400 - its text may be private
        raise UnexpectedError(
            f"Unexpected {type(exc).__name__}: a fault in the worker; its log names the place",
            {"error": type(exc).__name__},
        ) from None
