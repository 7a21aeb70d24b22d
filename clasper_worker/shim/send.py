"""``POST /api/agents/send`` and ``/stream``: enqueue one turn, and wait for it or follow it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import JSONResponse
from starlette.responses import Response

from clasper_worker.client import EnqueuedTurn
from clasper_worker.config.names import DISPATCH_QUEUE, TURN_QUEUE
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.shim.description import EVENTS_ANSWER, json_body, problems
from clasper_worker.shim.events import EventStream
from clasper_worker.shim.http import ApiProblem, json_object
from clasper_worker.shim.mark import mark_of
from clasper_worker.shim.metrics import shim_figures
from clasper_worker.shim.original_clients import take_key_header, without_unknown
from clasper_worker.shim.results import failure_status
from clasper_worker.shim.schemas import FailedTurn, Problem, Queued
from clasper_worker.shim.services import ShimServices
from clasper_worker.streams.results import JobOutcome
from clasper_worker.turn.admission import Admission
from clasper_worker.turn.journal import conflict
from clasper_worker.turn.journal_store import ledger_key, request_digest
from clasper_worker.turn.models import TurnResult, identify_turn
from clasper_worker.turn.request import SendRequest, parse_send_request

MAX_WAIT_SECONDS = 600.0
_EVENTS_TYPE = "text/event-stream"


_EXAMPLES: dict[str, dict[str, Any]] = {
    "A message": {"user_id": "u1", "message": "Hello", "task_title": "Launch"},
    "A plan, reported to a webhook": {
        "user_id": "u1",
        "agent_role": "writer",
        "message": "Announce the launch",
        "task_id": "t_1",
        "idempotency_key": "launch-1",
        "webhook": {"url": "https://example.com/hook", "secret": "change-me"},
        "metadata": {"kickoff_plan": True},
    },
}


@dataclass(frozen=True, slots=True)
class _Sent:
    """A turn that was enqueued: whether it is answered as events, and what was left out of it."""

    turn: EnqueuedTurn
    streamed: bool
    warnings: list[str]


def send_routes(services: ShimServices) -> APIRouter:
    """The routes that enqueue."""
    router = APIRouter()
    settings = services.settings
    admission = Admission.from_settings(settings)

    async def enqueue(request: Request, *, streamed: bool) -> _Sent:
        mark = mark_of(request, services.settings)
        body, warnings = await _body(request, services)
        streamed = streamed or (settings.clasper_send_streams and body.get("stream") is True)
        if streamed:
            body["stream"] = True
        checked, fields = await asyncio.to_thread(admission.admit, body)
        if streamed and checked.idempotency_key is not None:
            await _refuse_conflict(services, fields)
        # Of a dispatcher that has no broker: nobody waits for it, as for what a person sends.
        queue = TURN_QUEUE if mark is None else DISPATCH_QUEUE
        headers = {} if mark is None else {NOTIFICATION_HEADER: mark}
        turn = await asyncio.to_thread(
            services.client.enqueue, checked, fields, queue=queue, headers=headers
        )
        await services.register.add(turn.job_id, turn.turn_id)
        return _Sent(turn, streamed, warnings)

    @router.post(
        "/api/agents/send",
        status_code=202,
        operation_id="sendTurn",
        tags=["turns"],
        responses={
            202: {"model": Queued, "description": "It was enqueued"},
            200: {
                "model": TurnResult,
                "description": "It was waited for, and ended well; or, with `Accept:"
                " text/event-stream`, its events as `/api/agents/stream` answers them",
            },
            **problems(413, 415, 503),
            **problems(400, 404, 409, 429, 500, 502, 504, model=FailedTurn | Problem),
        },
        summary="Enqueue one agent turn",
        openapi_extra=json_body(SendRequest, _EXAMPLES),
        response_model=None,
    )
    async def send(
        request: Request,
        wait: Annotated[str | None, Query(description="Seconds to wait for the result")] = None,
        prefer: Annotated[str | None, Header(description="`wait=SECONDS` (RFC 7240)")] = None,
        accept: Annotated[str | None, Header(include_in_schema=False)] = None,
    ) -> Response:
        seconds = _wait_seconds(wait, prefer, settings.clasper_send_waits)
        sent = await enqueue(request, streamed=_EVENTS_TYPE in (accept or "").lower())
        turn = sent.turn
        warned = {"warnings": sent.warnings} if sent.warnings else {}
        if sent.streamed:
            return _events(services, turn)
        if seconds > 0:
            with shim_figures().waiting.track_inprogress():
                outcome = await services.results.wait(turn.job_id, seconds)
            if outcome.ended:
                return _ended(turn.job_id, turn.turn_id, outcome, warned)
        status_url = f"/api/jobs/{turn.job_id}"
        return JSONResponse(
            {
                "status": "queued",
                "job_id": turn.job_id,
                "turn_id": turn.turn_id,
                "status_url": status_url,
                "events_url": f"{status_url}/events",
                **warned,
            },
            status_code=202,
            headers={"Location": status_url},
        )

    @router.post(
        "/api/agents/stream",
        operation_id="streamTurn",
        tags=["turns"],
        responses={200: EVENTS_ANSWER, **problems(400, 409, 413, 415, 500, 503)},
        summary="Enqueue one agent turn and follow its events",
        openapi_extra=json_body(SendRequest, _EXAMPLES),
        response_class=Response,
        response_model=None,
    )
    async def stream(request: Request) -> Response:
        return _events(services, (await enqueue(request, streamed=True)).turn)

    return router


async def _body(request: Request, services: ShimServices) -> tuple[dict[str, Any], list[str]]:
    """The request's fields, and what was left out of them."""
    body = await json_object(request, services.limits.request_chars)
    take_key_header(request, body)
    return without_unknown(body) if services.settings.clasper_lenient else (body, [])


async def _refuse_conflict(services: ShimServices, fields: Mapping[str, Any]) -> None:
    """Refuse another request under a turn's key: it is not to follow that turn's text."""
    asked = await asyncio.to_thread(parse_send_request, fields, services.limits)
    turn = identify_turn(asked.user_id, asked.idempotency_key, "")
    known = await services.register.request_of(ledger_key(asked, turn))
    if known not in {None, request_digest(asked)}:
        problem = conflict()
        raise ApiProblem(409, problem.code, str(problem), problem.details)


def _events(services: ShimServices, turn: EnqueuedTurn) -> Response:
    follower = services.streams.follow(turn.job_id, turn.turn_id)
    # Where to go on, should the connection break before any event came.
    return EventStream(follower, {"Content-Location": f"/api/jobs/{turn.job_id}/events"})


def _wait_seconds(query: str | None, prefer: str | None, default: float) -> float:
    value = query
    if value is None and prefer is not None:
        preferences = (part.strip().partition("=") for part in prefer.replace(";", ",").split(","))
        value = next((text for name, _, text in preferences if name.lower() == "wait"), None)
    if value is None:
        return default
    try:
        seconds = float(value)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise ApiProblem(
            400,
            "invalid_request",
            f"wait: must be a number of seconds from 0 to {MAX_WAIT_SECONDS:g}",
        )
    return seconds


def _ended(job_id: str, turn_id: str, outcome: JobOutcome, warned: dict[str, Any]) -> JSONResponse:
    if outcome.error is None:
        return JSONResponse({**(outcome.result or {}), **warned})
    ids = {"job_id": job_id, "turn_id": turn_id}
    return JSONResponse(
        {"status": "failed", **ids, **outcome.error, **warned},
        status_code=failure_status(outcome.error),
    )
