"""What a turn returns: the contract's result, with usage in tokens and cost in USD."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.llm.cost import Cost, Usage
from clasper_worker.observability.trace_context import TraceContext


class RolledBack(BaseModel):
    """What a turn had stored that was cancelled for this one (busy policy ``rollback``).

    Attributes:
        turn_id: the cancelled turn's.
        messages: ids of the messages that it had posted, in that order.
        documents: ids of the documents that it had made, likewise.
    """

    model_config = ConfigDict(frozen=True)

    turn_id: str
    messages: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()


class TurnResult(BaseModel):
    """The outcome of one turn that succeeded (contract Part 2, "The result").

    Its ``repr`` leaves out the response: Celery puts the ``repr`` of a result into its log and
    into the events that Flower shows.
    """

    model_config = ConfigDict(frozen=True)

    status: Literal["ok"] = "ok"
    turn_id: str
    task_id: str
    trace_id: str
    response: str = Field(repr=False)
    usage: Usage
    cost: Cost
    tool_calls: int
    context_warning: str | None = None
    rolled_back: RolledBack | None = None

    def __repr__(self) -> str:
        return (
            f"TurnResult(turn_id={self.turn_id!r}, task_id={self.task_id!r},"
            f" tool_calls={self.tool_calls}, tokens={self.usage.total_tokens})"
        )

    def as_json(self) -> dict[str, Any]:
        """The contract's result as JSON types; optional fields that are unset are left out."""
        data = self.model_dump(mode="json")
        for optional in ("context_warning", "rolled_back"):
            if data[optional] is None:
                del data[optional]
        if data["cost"]["reason"] is None:
            del data["cost"]["reason"]
        return data

    # kombu's JSON serializer asks an object for its JSON form by this name.
    __json__ = as_json

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """Read a result as Celery's result backend returns it."""
        return cls.model_validate(data)


@dataclass(frozen=True, slots=True)
class TurnIdentity:
    """A turn's ids.

    Attributes:
        turn_id: the same for every Celery task that asks for this turn.
        job_id: the Celery task that runs it.
        trace_id: 32 hexadecimal digits, of the caller's trace or else the run's own; joins logs
            and traces.
    """

    turn_id: str
    job_id: str
    trace_id: str


def identify_turn(
    user_id: str, idempotency_key: str | None, job_id: str, trace: TraceContext | None = None
) -> TurnIdentity:
    """Make the identity of one run; ``trace`` is the caller's, where there is one."""
    return TurnIdentity(
        turn_id=turn_id_for(user_id, idempotency_key, job_id),
        job_id=job_id,
        trace_id=(trace or TraceContext()).trace_id,
    )


@dataclass(frozen=True, slots=True)
class ResolvedTask:
    """The task to read from and post to; its title where we know it."""

    id: str
    title: str | None = field(default=None, repr=False)
