"""``/``: the page, its files, and what its script asks for.

It acts for whichever user is chosen, without a sign-in, so that it serves this machine's own
browser alone: where the page is on, and to requests that name this machine as their host and come
from no other origin (another web page's, after DNS rebinding or in a form of its own).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from sse_starlette import EventSourceResponse
from starlette.datastructures import URL

from clasper_worker.devkit.reference_backend.access import Backend, BackendDep
from clasper_worker.devkit.reference_backend.auth import Agent
from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.devkit.reference_backend.events import find_position, stream
from clasper_worker.devkit.reference_backend.page.reads import (
    DEFAULT_ROLE,
    read_view,
    roles_of,
)
from clasper_worker.devkit.reference_backend.page.view import render
from clasper_worker.devkit.reference_backend.records import (
    MESSAGES,
    TASKS,
    JsonItem,
    get,
    insert,
    now,
)
from clasper_worker.devkit.reference_backend.routes import tool_requests
from clasper_worker.devkit.reference_backend.schemas import (
    Content,
    Decision,
    Key,
    KeyedBody,
    Name,
    RequestBody,
    Role,
)
from clasper_worker.devkit.reference_backend.store import Transaction
from clasper_worker.shim.loopback import is_this_machine

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
        " connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_FILES = {
    "style.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
_ASSETS = files("clasper_worker.devkit.reference_backend.page") / "assets"
_FIRST_USER = "u1"
_TITLE_CHARS = 80
_STOP_SECONDS = 2  # less than the server's own

_User = Annotated[Name, Query()]
_JobId = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,200}$")]


async def _this_machine_alone(request: Request, backend: BackendDep) -> None:
    if not backend.config.page:
        raise ApiError(404, "The page is off: it is on where the backend listens on loopback.")
    origin = request.headers.get("origin")
    own = URL(scope=request.scope)
    host = f"//{request.headers.get('host', '')}"
    if not is_this_machine(host) or origin not in (None, f"{own.scheme}:{host}"):
        raise ApiError(403, "The page serves this machine's browser alone, as localhost.")


router = APIRouter(include_in_schema=False, dependencies=[Depends(_this_machine_alone)])


class NewTurn(KeyedBody):
    """What a person writes to an agent."""

    idempotency_key: Key
    user_id: Name
    agent_role: Role = DEFAULT_ROLE
    task_id: Name | None = None
    message: Content


class PageDecision(RequestBody):
    """What a person decides of a tool request."""

    user_id: Name
    status: Literal["approved", "rejected"]


@router.get("/")
async def page(
    backend: BackendDep,
    user: _User = _FIRST_USER,
    task: Annotated[str | None, Query()] = None,
    role: Annotated[Role | None, Query()] = None,
) -> Response:
    """The page of one user, with one thread open."""
    souls = roles_of(backend.config.workspace)
    view = backend.store.read(
        lambda connection: read_view(connection, user, task or None, role, souls)
    )
    return HTMLResponse(render(view, await backend.worker.problem()), headers=_HEADERS)


@router.get("/page/events")
async def events(backend: BackendDep, user: _User) -> EventSourceResponse:
    """That something of the user's changed: the script then asks for the page again."""
    stop = anyio.Event()
    changes = stream(
        backend.store,
        backend.wakeups,
        user,
        find_position(backend.store, None),
        seconds=None,
        stop=stop,
    )
    return _event_stream(backend, changes, stop)


@router.post("/page/turns")
async def send(request: Request, backend: BackendDep, body: NewTurn) -> Response:
    """Keep what the person wrote, in its thread or a new one, and ask the worker for a turn."""
    if backend.worker.url is None:
        raise ApiError(503, "No worker is connected.", code="no_worker")

    def work(transaction: Transaction) -> JsonItem:
        task_id = body.task_id
        if task_id is None:
            moment = now()
            title = " ".join(body.message[: 4 * _TITLE_CHARS].split())[:_TITLE_CHARS]
            values = {
                "title": title or "New thread",
                "status": "in_progress",
                "metadata": {"type": "agent_thread"},
                "created_at": moment,
                "updated_at": moment,
            }
            task_id = insert(transaction, TASKS, body.user_id, values)["id"]
        else:
            get(transaction, TASKS, body.user_id, task_id)
        values = {
            "task_id": task_id,
            "content": body.message,
            "actor_type": "user",
            "actor_id": body.user_id,
            "agent_role": body.agent_role,
        }
        insert(transaction, MESSAGES, body.user_id, values)
        return {"task_id": task_id}

    kept = await backend.change_once(request, body.user_id, body, work)
    task_id = json.loads(bytes(kept.body))["task_id"]
    turn: dict[str, Any] = {
        "user_id": body.user_id,
        "agent_role": body.agent_role,
        "message": body.message,
        "task_id": task_id,
        "stream": True,
        "idempotency_key": body.idempotency_key,
    }
    answer = await backend.worker.send(turn)
    started = {"job_id": answer["job_id"], "turn_id": answer["turn_id"], "task_id": task_id}
    return JSONResponse(started, status_code=202)


@router.get("/page/turns/{job_id}")
async def status(backend: BackendDep, job_id: _JobId) -> Response:
    """How a turn is doing: what the script asks for where it cannot follow the events."""
    return JSONResponse(await backend.worker.status(job_id), headers=_HEADERS)


@router.get("/page/turns/{job_id}/events")
async def turn_events(
    request: Request,
    backend: BackendDep,
    job_id: _JobId,
    after: Annotated[str | None, Query(max_length=200, pattern=r"^[\x21-\x7e]*$")] = None,
) -> EventSourceResponse:
    """A turn's events, from the worker; `after` is as ``Last-Event-ID``, which wins."""
    last = request.headers.get("last-event-id") or after
    opened = await backend.worker.follow(job_id, last)
    stop = anyio.Event()
    return _event_stream(backend, _until(stop, opened), stop)


@router.delete("/page/turns/{job_id}")
async def stop_turn(backend: BackendDep, job_id: _JobId) -> Response:
    """Stop a turn."""
    return JSONResponse(await backend.worker.cancel(job_id))


@router.post("/page/tool-requests/{request_id}")
async def decide(backend: BackendDep, request_id: str, body: PageDecision) -> Response:
    """Approve or reject a tool request, for the person."""
    person = Agent(body.user_id, DEFAULT_ROLE, float("inf"))
    decision = Decision(status=body.status, by=body.user_id)
    return await tool_requests.decide(backend, person, request_id, decision)


@router.get("/page/{name}")
async def asset(name: str) -> Response:
    """A file of the page."""
    media_type = _FILES.get(name)
    if media_type is None:
        raise ApiError(404, "The page has no such file.")
    return Response((_ASSETS / name).read_bytes(), media_type=media_type, headers=_HEADERS)


async def _until(stop: anyio.Event, events: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The events, to their end or to the server's, which they do not hold up."""
    stopping = asyncio.ensure_future(stop.wait())
    coming: asyncio.Task[bytes | None] | None = None
    try:
        while not stop.is_set():
            coming = asyncio.create_task(_next(events))
            await asyncio.wait({coming, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() or (some := coming.result()) is None:
                return
            yield some
    finally:
        stopping.cancel()
        if coming is not None:
            coming.cancel()


async def _next(events: AsyncIterator[bytes]) -> bytes | None:
    return await anext(events, None)


def _event_stream(backend: Backend, content: Any, stop: anyio.Event) -> EventSourceResponse:
    return EventSourceResponse(
        content,
        headers={"X-Content-Type-Options": "nosniff"},
        ping=backend.config.keepalive_seconds,
        shutdown_event=stop,
        shutdown_grace_period=_STOP_SECONDS,
    )
