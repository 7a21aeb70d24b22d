"""The events of a turn as its followers get them: one schema for HTTP, Python and the command line.

A consumer that drops the chunks of a step at `RetryEvent` has, at `DoneEvent`, in the chunks of the
last step exactly the ``response``, or no chunk at all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field


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
    """The job ended well; the last event. All fields of the result (`TurnResult`) are there."""

    type: Literal["done"]


class ErrorEvent(StreamEvent):
    """The job failed, was cancelled or given up; the last event."""

    type: Literal["error"]
    error: str
    code: str
    details: dict[str, Any] = Field(default_factory=dict)


EVENTS: tuple[type[StreamEvent], ...] = (
    QueuedEvent,
    StartEvent,
    StepEvent,
    ChunkEvent,
    ToolEvent,
    WaitingEvent,
    RetryEvent,
    DoneEvent,
    ErrorEvent,
)
_BY_TYPE = {str(get_args(model.model_fields["type"].annotation)[0]): model for model in EVENTS}


def read_event(event_id: str, data: Mapping[str, Any]) -> StreamEvent:
    """The typed event; one of a type that is newer than this reader as a plain `StreamEvent`."""
    model = _BY_TYPE.get(str(data.get("type")), StreamEvent)
    return model.model_validate({**data, "id": event_id})
