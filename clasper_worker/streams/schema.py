"""The events of a turn as its followers get them: one schema for HTTP, Python and the command line.

A consumer that drops the chunks of a step at `RetryEvent` has, at `DoneEvent`, in the chunks of the
last step exactly the ``response``, or no chunk at all.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class StreamEvent(BaseModel):
    """One event. ``id`` stands beside the data: it is what `Last-Event-ID` goes on after."""

    model_config = ConfigDict(extra="allow", frozen=True)

    type: str
    id: str = Field(default="", exclude=True, description="Where to go on after it.")


class QueuedEvent(StreamEvent):
    """The turn waits."""

    type: Literal["queued"]
    reason: str = Field(
        description="For what: `worker` (one with a free place), `session` (earlier turns of it),"
        " `user_limit` (as many of the user's turns as may run do)."
    )
    ahead: int | None = Field(default=None, description="Turns of the session before it.")


class StartEvent(StreamEvent):
    """A worker runs the turn. It comes again where another worker goes on with it."""

    type: Literal["start"]
    job_id: str
    turn_id: str
    trace_id: str = ""
    resumed: bool = False
    streamed: bool = Field(default=False, description="Whether there will be chunks.")


class StepEvent(StreamEvent):
    """The model is asked."""

    type: Literal["step"]
    step: int = Field(description="The model call's number in the turn, from 1.")


class ChunkEvent(StreamEvent):
    """A part of a step's text."""

    type: Literal["chunk"]
    data: str = Field(repr=False)
    step: int


class ToolEvent(StreamEvent):
    """A tool is called, or has answered."""

    type: Literal["tool"]
    phase: Literal["call", "result"]
    step: int
    index: int = Field(description="Of the call in the step, from 0.")
    tool: str
    chars: int | None = Field(default=None, description="With `result`: its size.")
    seconds: float | None = Field(default=None, description="With `result`.")
    ok: bool | None = Field(default=None, description="With `result`.")


class WaitingEvent(StreamEvent):
    """The running turn waits: for a host that is down or limits the rate, or for a person."""

    type: Literal["waiting"]
    reason: str
    seconds: float | None = None


class RetryEvent(StreamEvent):
    """What was streamed of this step is void: drop it; its text starts anew."""

    type: Literal["retry"]
    step: int


class DoneEvent(StreamEvent):
    """The job ended well; the last event. All fields of the result are there."""

    type: Literal["done"]


class ErrorEvent(StreamEvent):
    """The job failed, was cancelled or given up; the last event."""

    type: Literal["error"]
    error: str
    code: str
    details: dict[str, Any] = Field(default_factory=dict)


AnyEvent = Annotated[
    QueuedEvent
    | StartEvent
    | StepEvent
    | ChunkEvent
    | ToolEvent
    | WaitingEvent
    | RetryEvent
    | DoneEvent
    | ErrorEvent,
    Field(discriminator="type"),
]
_EVENTS: TypeAdapter[Any] = TypeAdapter(AnyEvent)


def read_event(event_id: str, data: dict[str, Any]) -> StreamEvent:
    """The typed event; one of a type that is newer than this reader as a plain `StreamEvent`."""
    fields = {**data, "id": event_id}
    if data.get("type") not in _TYPES:
        return StreamEvent.model_validate(fields)
    event: StreamEvent = _EVENTS.validate_python(fields)
    return event


_TYPES = frozenset(
    {"queued", "start", "step", "chunk", "tool", "waiting", "retry", "done", "error"}
)
