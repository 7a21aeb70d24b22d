"""The tenant's server-sent events."""

from __future__ import annotations

from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Query
from sse_starlette import EventSourceResponse

from clasper_worker.devkit.reference_backend.access import AgentDep, BackendDep, feature
from clasper_worker.devkit.reference_backend.events import find_position, stream

router = APIRouter(
    prefix="/api/mission-control",
    tags=["events"],
    dependencies=[Depends(feature("events_sse"))],
)

_STOP_SECONDS = 2  # less than the server's own


@router.get("/events", response_class=EventSourceResponse)
async def events(
    backend: BackendDep,
    agent: AgentDep,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[
        str | None, Query(description="As Last-Event-ID, where no header can be set; 0 for all.")
    ] = None,
) -> EventSourceResponse:
    """What happens to the user's tasks, messages, documents, notifications and tool requests.

    Each event is `{"type", "action", "item"}`. The first is `ready` (with the id to resume from)
    or, where events since `Last-Event-ID` are no longer kept, `reset`: read the lists anew. The
    stream ends when its token expires.
    """
    position = find_position(backend.store, after if last_event_id is None else last_event_id)
    stop = anyio.Event()
    return EventSourceResponse(
        stream(
            backend.store,
            backend.wakeups,
            agent.user_id,
            position,
            seconds=agent.seconds_left,
            stop=stop,
        ),
        ping=backend.config.keepalive_seconds,
        shutdown_event=stop,
        shutdown_grace_period=_STOP_SECONDS,
    )
