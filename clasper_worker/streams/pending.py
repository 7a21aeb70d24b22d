"""What a run of a turn has reported and Redis does not have yet."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.observability.events import TurnReference


@dataclass(slots=True)
class _Text:
    """Chunks of one step that leave together."""

    step: int
    parts: list[str]


@dataclass(frozen=True, slots=True)
class Batch:
    """What leaves in one call; sent again as it is until Redis has answered.

    Attributes:
        number: within the run, from 1.
        anew: whether it says anew what may be lost.
        first: the first step that the model is asked for in it; 0: none.
        counts: the step whose chunks count after it; 0: none, "": as before.
        ended: ``ok`` or ``no`` where the run ends with it.
        events: as JSON; empty where there are none.
        waiters: who waits until Redis has it.
    """

    number: int
    anew: bool
    first: int
    counts: int | str
    ended: str
    events: bytes = field(repr=False)
    waiters: list[asyncio.Future[None]]


@dataclass(slots=True)
class PendingRun:
    """A run, and what is still to be written of it.

    Attributes:
        turn: whose run it is.
        number: see `TurnReference.run`.
        batch: on its way, or to be sent again; None where Redis has all that was batched.
        ended: ``ok`` or ``no`` once the run ended so that its turn is over; else empty.
        is_over: whether nothing more is reported of it.
        due: when what is pending is to leave, by the loop's clock; None where nothing is.
    """

    turn: TurnReference
    number: int
    batch: Batch | None = None
    ended: str = ""
    is_over: bool = False
    due: float | None = None
    waiters: list[asyncio.Future[None]] = field(default_factory=list)
    _events: list[dict[str, Any] | _Text] = field(default_factory=list, repr=False)
    _batches: int = 0
    _lost: bool = False
    _first: int = 0
    _counts: int | str = ""
    _step: int = 0
    _text: list[str] = field(default_factory=list, repr=False)  # of the step, sent or not

    @property
    def has_pending(self) -> bool:
        """Whether anything is to be put into a batch."""
        return bool(self._events or self.waiters or self._lost or self.ended)

    def add(self, event: dict[str, Any]) -> None:
        """Note an event that is no text."""
        self._events.append(event)

    def ask(self, step: int) -> None:
        """The model is asked for a step."""
        self._begin(step)
        self._events.append({"type": "step", "step": step})

    def write(self, step: int, text: str) -> bool:
        """Note text of a step; True for the first since the step, or the step's retry, began."""
        if step != self._step:
            self._begin(step)
        is_first = not self._text
        self._text.append(text)
        self._counts = step
        last = self._events[-1] if self._events else None
        if isinstance(last, _Text) and last.step == step:
            last.parts.append(text)
        else:
            self._events.append(_Text(step, [text]))
        return is_first

    def retry(self, step: int) -> None:
        """What was streamed of this step is void; what has not left is left out."""
        if step != self._step:
            self._begin(step)
        if not self._text:
            return  # nothing of this run's; that of earlier ones Redis itself declares void
        self._text.clear()
        self._events = [one for one in self._events if not isinstance(one, _Text)]
        self._events.append({"type": "retry", "step": step})
        self._counts = 0

    def lose(self) -> None:
        """Redis has lost earlier batches: the next one says anew what the present step said."""
        self.batch = None
        self._lost = True

    def next_batch(self) -> Batch:
        """Put all that is pending into a batch."""
        if self._lost:
            self._say_anew()
        self._batches += 1
        self.batch = Batch(
            number=self._batches,
            anew=self._lost,
            first=self._first,
            counts=self._counts,
            ended=self.ended,
            events=_encoded(self._events),
            waiters=self.waiters,
        )
        self.waiters = []
        self._events = []
        self._lost, self._first, self._counts = False, 0, ""
        return self.batch

    def _begin(self, step: int) -> None:
        self._step = step
        self._text.clear()
        self._first = min(self._first or step, step)

    def _say_anew(self) -> None:
        if not self._step:
            return
        self._events = [one for one in self._events if not isinstance(one, _Text)]
        if self.turn.streamed:
            self._events.append({"type": "retry", "step": self._step})
        self._first = self._step
        self._counts = 0
        if self._text:
            self._events.append(_Text(self._step, list(self._text)))
            self._counts = self._step


def _encoded(events: list[dict[str, Any] | _Text]) -> bytes:
    if not events:
        return b""
    plain = [
        {"type": "chunk", "data": "".join(one.parts), "step": one.step}
        if isinstance(one, _Text)
        else one
        for one in events
    ]
    try:
        return json.dumps(plain, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(plain, separators=(",", ":")).encode()
