"""The events of a turn: what it reports at each step, and to whom.

The turn calls one `TurnEvents`. Streaming, progress, metrics and traces are listeners: subclasses
that override the methods they need. `EventListeners` passes each event on to several of them. No
listener can fail a turn: what one raises is logged by its type and ends there. None may block: they
run on the turn's event loop, between two of its steps.

Order of a turn: ``queued``? ``started`` ``prompt_built`` (``model_asked`` (``chunk`` | ``retry``)*
``model_answered`` (``tool_called`` ``tool_answered``)*)* ``posted``* ``ended``, with ``waiting``
anywhere. A turn that is resumed from its journal starts anew, and repeats nothing that was
journaled. ``retry`` says that what was streamed of a step is void and its text starts anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Literal

import structlog

log = structlog.get_logger(__name__)

Outcome = Literal["ok", "failed", "timed_out", "cancelled", "lost"]
"""How a run ended; ``lost``: another worker has taken the turn over."""

Wait = Literal["outage", "rate_limit"]
"""Why a turn waits for a host: its circuit is open, or it limits our rate."""


@dataclass(frozen=True, slots=True)
class TurnReference:
    """Whose turn an event is of.

    Attributes:
        turn_id: the turn's id.
        job_id: the Celery task that runs it.
        trace_id: 32 hexadecimal digits.
        user_id: the tenant.
        session_key: the turn's session.
        role: the agent's role.
        kind: what asked for it: ``send``, ``notification``, ``heartbeat`` or ``standup``.
        workspace: the name that the request asks for; None where it asks for none.
        streamed: whether its text is reported as it comes, by `TurnEvents.chunk`.
        run: greater than that of every earlier run of the turn: the fencing number of what a run
            writes; 0 where it has none.
    """

    turn_id: str
    job_id: str
    trace_id: str
    user_id: str
    session_key: str
    role: str
    kind: str = "send"
    workspace: str | None = None
    streamed: bool = False
    run: int = 0


@dataclass(frozen=True, slots=True)
class ModelSpend:
    """What a job used of one model, all its calls together.

    Attributes:
        model: the name that the provider gave.
        input_tokens: of the requests.
        output_tokens: of the answers.
        cost_usd: USD; None where none of the calls has a known price.
        unpriced_calls: how many have none, or gave no usage.
    """

    model: str
    input_tokens: int
    output_tokens: int
    cost_usd: float | None
    unpriced_calls: int = 0


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """One answered model call.

    Attributes:
        step: the model call's number in the turn, from 1.
        provider: whom it was asked of.
        model: the name that the provider gave.
        seconds: from the request to the whole answer, waits for the circuit included.
        prompt_tokens: tokens of the request as the provider counted them.
        completion_tokens: tokens of the answer.
        cached_tokens: the part of ``prompt_tokens`` that came from the provider's cache.
        tool_calls: how many tools it calls.
        finish_reason: the provider's word for why it ended.
    """

    step: int
    provider: str
    model: str
    seconds: float
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    tool_calls: int
    finish_reason: str | None


@dataclass(frozen=True, slots=True)
class TurnEnd:
    """How a run of a turn ended, and where its time went.

    Attributes:
        outcome: see `Outcome`.
        code: the error's code; None where there is none.
        seconds: of this run, all in all.
        model_seconds: of it spent on the model.
        tool_seconds: of it spent on tools.
        backend_seconds: of it spent on the backend, tools left out.
        queue_seconds: from the message's arrival to the run's start; None where it is not known.
        lane_seconds: of them, those behind other turns of its session.
        resumed: whether an earlier run had begun the turn.
        cost_usd: USD that the turn cost, all its runs together; None where the price or the usage
            is not known, or there was no answer.
        model: of the last answer; None where there was none.
        spent: by model, in all runs of the turn, as far as they were journaled.
    """

    outcome: Outcome
    code: str | None = None
    seconds: float = 0.0
    model_seconds: float = 0.0
    tool_seconds: float = 0.0
    backend_seconds: float = 0.0
    queue_seconds: float | None = None
    lane_seconds: float | None = None
    resumed: bool = False
    cost_usd: float | None = None
    model: str | None = None
    spent: tuple[ModelSpend, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """What a prompt was made of.

    Attributes:
        seconds: what reading the history and building the prompt took.
        messages: how many, the system prompt included.
        estimated_tokens: what it takes of the model's window, estimated.
        dropped: messages of the history that did not fit.
        skills: those whose instructions were told.
    """

    seconds: float
    messages: int
    estimated_tokens: int
    dropped: int = 0
    skills: tuple[str, ...] = ()


class TurnEvents:
    """What a turn reports; here each method does nothing. Subclass it to listen."""

    def queued(self, turn: TurnReference, *, reason: str, ahead: int) -> None:
        """The turn was taken in and waits: for its ``session``, in which ``ahead`` are before it.

        Reported once for each turn, by the worker that takes it in, which need not be the one that
        runs it; its ``trace_id`` is empty, since runs have one.
        """

    def started(self, turn: TurnReference, *, resumed: bool, queue_seconds: float | None) -> None:
        """A worker runs the turn; ``resumed`` where an earlier run had begun it."""

    def prompt_built(self, turn: TurnReference, prompt: PromptFacts) -> None:
        """The model's first request is ready."""

    def model_asked(self, turn: TurnReference, *, step: int) -> None:
        """The model is asked for the answer of a step."""

    def chunk(self, turn: TurnReference, *, step: int, text: str) -> None:
        """A part of a step's text came; only where the turn is streamed."""

    def retry(self, turn: TurnReference, *, step: int) -> None:
        """What was streamed of this step is void: its text starts anew."""

    def model_answered(self, turn: TurnReference, answer: ModelAnswer) -> None:
        """The answer of a step is whole and recorded."""

    def tool_called(self, turn: TurnReference, *, step: int, index: int, tool: str) -> None:
        """A tool call of a step's answer begins; ``index`` counts them from 0."""

    def tool_answered(
        self,
        turn: TurnReference,
        *,
        step: int,
        index: int,
        tool: str,
        seconds: float,
        chars: int,
        succeeded: bool,
    ) -> None:
        """A tool's result of ``chars`` characters is recorded."""

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        """The turn waits for a host that is down (``outage``) or limits our rate (``rate_limit``).

        ``seconds`` says for how long, where that is known; it goes on by itself. Reported once
        for each request that waits out an outage, and each time that one waits for a rate limit.
        """

    def posted(self, turn: TurnReference, *, what: str, seconds: float) -> None:
        """The backend took the turn's ``reply``, ``plan`` or ``timeout``."""

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        """The run is over."""

    async def flush(self, turn: TurnReference) -> None:
        """Return once everything reported so far is kept; awaited in streamed turns only.

        Before a step's reply is recorded, since a run that goes on from there does not repeat its
        text, and before ``ended``.
        """


@dataclass(frozen=True, slots=True)
class EventListeners(TurnEvents):
    """Passes each event on to several listeners, in their order; none can fail the turn.

    Args:
        listeners: whom to tell.
    """

    listeners: Sequence[TurnEvents] = field(default_factory=tuple)

    def queued(self, turn: TurnReference, *, reason: str, ahead: int) -> None:
        """See `TurnEvents.queued`."""
        self._tell(lambda to: to.queued(turn, reason=reason, ahead=ahead))

    def started(self, turn: TurnReference, *, resumed: bool, queue_seconds: float | None) -> None:
        """See `TurnEvents.started`."""
        self._tell(lambda to: to.started(turn, resumed=resumed, queue_seconds=queue_seconds))

    def prompt_built(self, turn: TurnReference, prompt: PromptFacts) -> None:
        """See `TurnEvents.prompt_built`."""
        self._tell(lambda to: to.prompt_built(turn, prompt))

    def model_asked(self, turn: TurnReference, *, step: int) -> None:
        """See `TurnEvents.model_asked`."""
        self._tell(lambda to: to.model_asked(turn, step=step))

    def chunk(self, turn: TurnReference, *, step: int, text: str) -> None:
        """See `TurnEvents.chunk`."""
        self._tell(lambda to: to.chunk(turn, step=step, text=text))

    def retry(self, turn: TurnReference, *, step: int) -> None:
        """See `TurnEvents.retry`."""
        self._tell(lambda to: to.retry(turn, step=step))

    def model_answered(self, turn: TurnReference, answer: ModelAnswer) -> None:
        """See `TurnEvents.model_answered`."""
        self._tell(lambda to: to.model_answered(turn, answer))

    def tool_called(self, turn: TurnReference, *, step: int, index: int, tool: str) -> None:
        """See `TurnEvents.tool_called`."""
        self._tell(lambda to: to.tool_called(turn, step=step, index=index, tool=tool))

    def tool_answered(
        self,
        turn: TurnReference,
        *,
        step: int,
        index: int,
        tool: str,
        seconds: float,
        chars: int,
        succeeded: bool,
    ) -> None:
        """See `TurnEvents.tool_answered`."""
        self._tell(
            lambda to: to.tool_answered(
                turn,
                step=step,
                index=index,
                tool=tool,
                seconds=seconds,
                chars=chars,
                succeeded=succeeded,
            )
        )

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        """See `TurnEvents.waiting`."""
        self._tell(lambda to: to.waiting(turn, reason=reason, seconds=seconds))

    def posted(self, turn: TurnReference, *, what: str, seconds: float) -> None:
        """See `TurnEvents.posted`."""
        self._tell(lambda to: to.posted(turn, what=what, seconds=seconds))

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        """See `TurnEvents.ended`."""
        self._tell(lambda to: to.ended(turn, end))

    async def flush(self, turn: TurnReference) -> None:
        """See `TurnEvents.flush`."""
        for listener in self.listeners:
            try:
                await listener.flush(turn)
            except Exception as exc:  # noqa: BLE001 - no listener can fail a turn
                _log_failure(listener, exc)

    def _tell(self, tell: Callable[[TurnEvents], None]) -> None:
        for listener in self.listeners:
            try:
                tell(listener)
            except Exception as exc:  # noqa: BLE001 - no listener can fail a turn
                _log_failure(listener, exc)


def _log_failure(listener: TurnEvents, exc: Exception) -> None:
    # Its text may be private.
    log.error("turn.listener_failed", listener=type(listener).__name__, error=type(exc).__name__)


@dataclass(frozen=True, slots=True)
class ReportedTurn:
    """One turn, and who listens to it.

    Attributes:
        turn: whose events they are.
        events: who is told.
    """

    turn: TurnReference
    events: TurnEvents = field(default_factory=TurnEvents)


UNHEARD = ReportedTurn(TurnReference("", "", "", "", "", ""))
"""A turn that nobody listens to."""

_running: ContextVar[ReportedTurn] = ContextVar("clasper_running_turn", default=UNHEARD)


@contextmanager
def running_turn(reported: ReportedTurn) -> Iterator[None]:
    """Have what runs within report of this turn, however deep below it: see `report_waiting`."""
    token = _running.set(reported)
    try:
        yield
    finally:
        _running.reset(token)


def report_waiting(reason: Wait, seconds: float | None) -> None:
    """Report that the turn of this context, where there is one, waits."""
    reported = _running.get()
    reported.events.waiting(reported.turn, reason=reason, seconds=seconds)
