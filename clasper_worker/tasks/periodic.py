"""Heartbeats and standups, and the ticks that enqueue them."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from datetime import date
from typing import Any

import structlog
from celery.exceptions import Ignore

from clasper_worker.celery import app
from clasper_worker.config.local_time import parse_time_of_day
from clasper_worker.config.names import HEARTBEAT_TASK, HEARTBEATS_TASK, STANDUP_TASK, STANDUPS_TASK
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.delivery import TurnDelivery
from clasper_worker.errors import LaneFullError, LeaseLostError, SessionBusyError
from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.heartbeat import HeartbeatRules, run_heartbeat, skipped
from clasper_worker.periodic.standup import StandupRules, run_standup
from clasper_worker.process import JOBS, RUNTIME
from clasper_worker.tasks.base import ClasperTask, turn_log_context, typed_errors
from clasper_worker.tasks.cancelled import fence_of
from clasper_worker.turn.models import identify_turn
from clasper_worker.turn.route_check import refuse_misrouted
from clasper_worker.turn.validation import invalid_request
from clasper_worker.usage.counters import Spender


@app.task(base=ClasperTask, bind=True, name=HEARTBEAT_TASK)
async def heartbeat(self: ClasperTask, **kwargs: Any) -> dict[str, Any]:
    """One heartbeat of one agent (`clasper_worker.periodic.heartbeat`)."""
    async with typed_errors("heartbeat"):
        agent = _agent(kwargs)
        turn = identify_turn(agent.user_id, None, self.request.id)
        structlog.contextvars.bind_contextvars(
            **turn_log_context(turn, agent.user_id, agent.agent_role)
        )
        delivery = TurnDelivery.of(self.request)
        refuse_misrouted(delivery.route, kwargs, is_turn=False)
        try:
            delivery.check_verdict()
        except (SessionBusyError, LaneFullError):
            return skipped("busy").as_json()
        slots = (await JOBS.get()).slots
        note = f"heartbeat:{turn.turn_id}"
        if "slot" in kwargs and await slots.read([note]) != [None]:
            return skipped("repeated").as_json()
        lease = await fence_of(delivery, self.name, self.request.id, kwargs)
        deps = replace((await RUNTIME.get()).turns, lease=lease)
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


@app.task(base=ClasperTask, bind=True, name=STANDUP_TASK)
async def standup(self: ClasperTask, **kwargs: Any) -> dict[str, Any]:
    """The day's standup of one agent (`clasper_worker.periodic.standup`)."""
    async with typed_errors("standup"):
        agent = _agent(kwargs)
        structlog.contextvars.bind_contextvars(job_id=self.request.id, user_id=agent.user_id)
        runtime, day = await RUNTIME.get(), _day(kwargs.get("slot"))
        turns = runtime.turns
        workspace = runtime.usage.workspace(None, agent.user_id)
        spender = Spender(self.request.id, agent.user_id, agent.agent_role, workspace)
        with runtime.usage.metered(spender) as meter:
            report = await run_standup(
                agent,
                replace(turns, model=lambda tier: meter.of(turns.model(tier))),
                (await JOBS.get()).slots,
                StandupRules.from_settings(get_settings()),
                holder=self.request.id,
                day=day,
            )
        return report.as_json()


@app.task(base=ClasperTask, bind=True, name=HEARTBEATS_TASK, send_events=False)  # a tick
async def heartbeats(self: ClasperTask) -> dict[str, Any]:
    """A tick: enqueue the heartbeats that have come due (`clasper_worker.periodic.fan_out`)."""
    async with typed_errors("heartbeat"):
        jobs, settings = await JOBS.get(), get_settings()
        agents = await jobs.roster((await RUNTIME.get()).internal).agents() or ()
        interval = settings.clasper_heartbeat_interval_sec
        tick = await jobs.fan_out.heartbeats(
            agents, interval, now=time.time(), holder=self.request.id
        )
        return asdict(tick)


@app.task(base=ClasperTask, bind=True, name=STANDUPS_TASK, send_events=False)  # a tick
async def standups(self: ClasperTask) -> dict[str, Any]:
    """A tick: enqueue the standups that have come due (`clasper_worker.periodic.fan_out`)."""
    async with typed_errors("standup"):
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
