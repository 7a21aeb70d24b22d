"""A turn's journal: what it has decided so far, so that a later run goes on from there.

Entries of a turn in the ledger, each a JSON text:

==================  ===============================================================================
``request``         a digest of the request: another one under the same turn is a conflict
``streamed``        that a run began which reports the turn's text as it comes
``joined``          the jobs that were collected into it and are run with it
``opening``         the task, the moment and how far the history reached, as the model was told
``reply:STEP``      a model's reply, recorded before its tool calls are carried out
``tool:STEP:INDEX`` what a tool call of that reply gave, as the model is told
``made:KIND:AT:ID``  a message or document that the backend has confirmed, and when in the turn
``outcome``         how the turn ends, recorded before it is posted
``result``          what the turn returned, recorded once its posts are confirmed
==================  ===============================================================================

A run replays what is there and goes on. So no model call whose reply is recorded is made again, no
tool whose result is recorded is run again, and whatever is posted again is the very same: tools
take their arguments from the recorded reply, the reply's text is the recorded outcome's. A tool
that was started and has no result is run again, under the same idempotency key.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from clasper_worker.errors import TurnConflictError
from clasper_worker.llm.cost import Cost, Usage
from clasper_worker.llm.messages import ModelReply, TokenUsage, ToolCall
from clasper_worker.turn.journal_store import REQUEST, SPENT, STREAMED, TurnLedger
from clasper_worker.turn.models import ResolvedTask, TurnResult

_OPENING, _OUTCOME, _RESULT, _JOINED = "opening", "outcome", "result", "joined"
_MADE = "made:"
MADE_KINDS = ("messages", "documents")
"""What a turn may have the backend make that is named by its id afterwards."""
_TIMED_OUT = "null"  # the result of a turn that timed out and has said so: it returns none


class Outcome(BaseModel):
    """How a turn was decided to end, and what it took.

    Attributes:
        kind: ``reply``, or ``timed_out`` where the time limit came first.
        text: what is posted to the task.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["reply", "timed_out"]
    task_id: str
    text: str = Field(repr=False)
    usage: Usage = Usage()
    cost: Cost | None = None
    tool_calls: int = 0
    warning: str | None = None


@dataclass(frozen=True, slots=True)
class Opening:
    """What the first run told the model, as far as a later one cannot know it.

    Attributes:
        task: the turn's task.
        now: the moment that it was told.
        history_end: id of the last of the backend's messages that it saw; None where it saw none.
    """

    task: ResolvedTask
    now: datetime
    history_end: str | None = None


class TurnJournal:
    """What is known of one turn, and how more of it gets recorded.

    Every ``record`` returns what was recorded first, which is what counts: another run of the same
    turn may have been quicker.

    Args:
        ledger: where it is kept.
        key: what the ledger knows the turn by.
        known: the entries that there are.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        ledger: TurnLedger,
        key: str,
        known: Mapping[str, str],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._known = dict(known)
        self._clock = clock
        self._began = clock()
        self._opening: Opening | None = None
        self._made: list[str] = []
        self._answered: dict[int, ModelReply] = {}

    @classmethod
    async def open(
        cls,
        ledger: TurnLedger,
        key: str,
        digest: str,
        *,
        streamed: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Claim the turn for this request, and read what earlier runs recorded.

        Args:
            ledger: where it is kept.
            key: what the ledger knows the turn by.
            digest: of the request.
            streamed: whether this run reports the turn's text as it comes.
            clock: monotonic seconds.

        Raises:
            TurnConflictError: the turn was claimed with another request.
            StateUnavailableError: the ledger cannot be reached.
        """
        known = await ledger.claim(key, digest, streamed=streamed)
        if known[REQUEST] != digest:
            raise conflict()
        return cls(ledger, key, known, clock=clock)

    @property
    def spent_before(self) -> float:
        """Seconds that earlier runs of the turn took, up to the last thing they recorded."""
        return float(self._known.get(SPENT, 0))

    @property
    def has_begun(self) -> bool:
        """Whether an earlier run came so far that it recorded what it did."""
        return bool(self._known.keys() - {REQUEST, SPENT, STREAMED, _JOINED})

    @property
    def was_streamed(self) -> bool:
        """Whether an earlier run may have reported text of a step that it did not record."""
        return STREAMED in self._known

    @property
    def joined(self) -> tuple[str, ...] | None:
        """The jobs that are run with the turn; None where that is not decided."""
        text = self._known.get(_JOINED)
        return None if text is None else tuple(json.loads(text))

    @property
    def result(self) -> TurnResult | None:
        """What the turn returned, where it has ended well."""
        text = self._known.get(_RESULT, _TIMED_OUT)
        return None if text == _TIMED_OUT else TurnResult.model_validate_json(text)

    @property
    def has_timed_out(self) -> bool:
        """Whether the turn ran out of time and has said so in its task."""
        return self._known.get(_RESULT) == _TIMED_OUT

    @property
    def outcome(self) -> Outcome | None:
        """How the turn was decided to end."""
        text = self._known.get(_OUTCOME)
        return None if text is None else Outcome.model_validate_json(text)

    @property
    def opening(self) -> Opening | None:
        """What an earlier run told the model, or this one is about to."""
        text = self._known.get(_OPENING)
        return self._opening if text is None else _read_opening(text)

    def begin(self, opening: Opening) -> None:
        """Note what the model is told; recorded with the first reply that calls tools."""
        self._opening = opening

    def reply(self, step: int) -> ModelReply | None:
        """The model's reply of a step, from 1."""
        text = self._known.get(f"reply:{step}")
        return None if text is None else _read_reply(text)

    def note_reply(self, step: int, reply: ModelReply) -> None:
        """Note a reply that this run was given: it is paid for, also where it is of no use."""
        self._answered[step] = reply

    def replies(self) -> list[ModelReply]:
        """The model's replies, in their order: those recorded, and what else this run was given."""
        found: list[ModelReply] = []
        while True:
            step = len(found) + 1
            reply = self.reply(step) or self._answered.get(step)
            if reply is None:
                return found
            found.append(reply)

    def tool_result(self, step: int, index: int) -> str | None:
        """What a tool call of a step's reply gave, counted from 0."""
        text = self._known.get(f"tool:{step}:{index}")
        if text is None:
            return None
        result: str = json.loads(text)
        return result

    async def record_joined(self, job_ids: Sequence[str]) -> tuple[str, ...]:
        """Record which collected jobs are run with the turn, before any of it is done.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        await self._record((_JOINED, json.dumps(list(job_ids))))
        first: list[str] = json.loads(self._known[_JOINED])
        return tuple(first)

    async def record_reply(self, step: int, reply: ModelReply) -> ModelReply:
        """Record a reply before its tool calls are carried out.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        name = f"reply:{step}"
        entries = [(name, _reply_text(reply))]
        if self._opening is not None and _OPENING not in self._known:
            # After the reply: the opening belongs to whoever's reply it is.
            entries.append((_OPENING, _opening_text(self._opening)))
        await self._record(*entries)
        return _read_reply(self._known[name])

    async def record_tool_result(self, step: int, index: int, result: str) -> str:
        """Record what a tool call gave before the model is told.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        name = f"tool:{step}:{index}"
        await self._record((name, json.dumps(result)))
        first: str = json.loads(self._known[name])
        return first

    async def conclude(self, step: int, reply: ModelReply, outcome: Outcome) -> Outcome | None:
        """Record the last reply and, if it is the first of its step, the outcome it leads to.

        Returns:
            The turn's outcome, whoever decided it; None where another reply was first and the
            conversation goes on from that one.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        await self._record(
            (f"reply:{step}", _reply_text(reply)), (_OUTCOME, outcome.model_dump_json())
        )
        return self.outcome

    async def decide(self, outcome: Outcome) -> Outcome:
        """Record an outcome that no reply led to, and return the one that was first.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        await self._record((_OUTCOME, outcome.model_dump_json()))
        return self.outcome or outcome

    async def settle(self, result: TurnResult | None) -> TurnResult | None:
        """Record that all is posted, and what the turn returns: None where it timed out.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        await self._record((_RESULT, _TIMED_OUT if result is None else result.model_dump_json()))
        return self.result

    def note_made(self, kind: str, id_: str) -> None:
        """Note what the backend has made; recorded with whatever is recorded next."""
        if kind in MADE_KINDS:
            # Seconds of all runs together, which a later run continues, whatever its clock shows.
            self._made.append(f"{_MADE}{kind}:{self._spent:018.6f}:{id_}")

    async def keep_made(self) -> None:
        """Record what was noted since: at the end of a run, whatever that is.

        Raises:
            StateUnavailableError: the ledger cannot be reached.
        """
        if self._made:
            await self._record()

    @property
    def _spent(self) -> float:
        return self.spent_before + self._clock() - self._began

    async def _record(self, *entries: tuple[str, str]) -> None:
        # First, since they stand whatever another run has recorded of the rest.
        made = [(name, "1") for name in self._made]
        self._known |= await self._ledger.record(self._key, (*made, *entries), self._spent)
        del self._made[: len(made)]


async def made_by(ledger: TurnLedger, key: str) -> dict[str, list[str]]:
    """The ids of what the runs of a turn had the backend make, by kind (`MADE_KINDS`), in order.

    Raises:
        StateUnavailableError: the ledger cannot be reached.
    """
    # As a dict's keys, since a later run notes again what it was given again under the same key.
    found: dict[str, dict[str, None]] = {kind: {} for kind in MADE_KINDS}
    for name in sorted(await ledger.known(key)):
        if name.startswith(_MADE):
            kind, _, id_ = name.removeprefix(_MADE).split(":", 2)
            found[kind].setdefault(id_)
    return {kind: list(ids) for kind, ids in found.items()}


def conflict() -> TurnConflictError:
    """The error of a request whose turn was claimed by another one."""
    return TurnConflictError(
        "The idempotency_key was used before with a different request: use a new key for a"
        " new request, or send the same request again",
        {"field": "idempotency_key"},
    )


def _reply_text(reply: ModelReply) -> str:
    # ASCII, since a tool's arguments may hold half of a surrogate pair, which is not UTF-8.
    used = reply.usage
    return json.dumps(
        {
            "text": reply.text,
            "tool_calls": [
                (call.id, call.name, call.arguments, call.extra) for call in reply.tool_calls
            ],
            "extra": reply.extra,
            "usage": (used.prompt, used.completion, used.cached, used.is_complete),
            "provider": reply.provider,
            "model": reply.model,
            "finish_reason": reply.finish_reason,
        }
    )


def _read_reply(text: str) -> ModelReply:
    data: dict[str, Any] = json.loads(text)
    return ModelReply(
        text=data["text"],
        tool_calls=tuple(ToolCall(*call) for call in data["tool_calls"]),
        usage=TokenUsage(*data["usage"]),
        provider=data["provider"],
        model=data["model"],
        finish_reason=data["finish_reason"],
        extra=data.get("extra"),
    )


def _opening_text(opening: Opening) -> str:
    return json.dumps(
        {
            "task_id": opening.task.id,
            "task_title": opening.task.title,
            "now": opening.now.isoformat(),
            "history_end": opening.history_end,
        }
    )


def _read_opening(text: str) -> Opening:
    data: dict[str, Any] = json.loads(text)
    return Opening(
        ResolvedTask(data["task_id"], data["task_title"]),
        datetime.fromisoformat(data["now"]),
        data["history_end"],
    )
