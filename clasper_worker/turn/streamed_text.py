"""A turn's text, reported as it comes: the chunks of its last step, joined, are its response."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from clasper_worker.llm.messages import Listen, ModelEvent, Restarted, TextPart
from clasper_worker.llm.spoken import SpokenText
from clasper_worker.observability.events import UNHEARD, ReportedTurn
from clasper_worker.text.whole_text import whole

_LAST_SECONDS = 5.0


class StreamedText:
    """Reports what the model says in one run of a turn; nothing where that is not streamed.

    Where a step's text starts anew, in whatever way, a retry is reported first: listeners drop
    what they had of the step.

    Args:
        reported: the turn, and who listens.
    """

    def __init__(self, reported: ReportedTurn = UNHEARD) -> None:
        self._turn, self._events = reported.turn, reported.events
        self._step = 0  # the one that was asked last
        self._spoken = SpokenText()
        self._given: list[str] = []  # the chunks of that step
        self._is_doubtful = False

    @property
    def listen(self) -> Listen | None:
        """What the model's answer is given to; None where nobody asked for it bit by bit."""
        return self._on_event if self._turn.streamed else None

    def resume(self) -> None:
        """Take into account that an earlier run may have given part of the step it was in."""
        self._is_doubtful = True

    def ask(self, step: int) -> None:
        """Begin a step: the model is asked for its answer, for the first time or again."""
        if not self._turn.streamed:
            return
        if self._is_doubtful:
            self._is_doubtful = False
            self._events.retry(self._turn, step=step)
        if step == self._step:
            self._void()
        else:
            self._given.clear()
        self._step, self._spoken = step, SpokenText()

    def conclude(self, step: int | None, text: str) -> None:
        """See to it that what was given of a step is its text, which is known now.

        Args:
            step: None is the one that was asked last; of one that this run has not asked, others
                have given all.
            text: the reply's, or of the last step the turn's response.
        """
        if not self._step or step not in {None, self._step}:
            return
        text = whole(text).strip()
        given = "".join(self._given)
        if text.startswith(given):
            self._give(text[len(given) :])
        else:
            self._void()
            self._give(text)

    async def kept(self) -> None:
        """Return once what was reported is kept, so that no later run needs to say it again."""
        if self._turn.streamed:
            await self._events.flush(self._turn)

    async def kept_in_time(self) -> None:
        """As `kept`, at the end of a run, whatever that is: for a few seconds at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_SECONDS):
                await self.kept()

    def _on_event(self, event: ModelEvent) -> None:
        if isinstance(event, TextPart):
            text = self._spoken.feed(event.text)
            if self._spoken.restarted:
                self._void()
            self._give(text)
        elif isinstance(event, Restarted):
            self._void()
            self._spoken = SpokenText()

    def _give(self, text: str) -> None:
        if text:
            self._given.append(text)
            self._events.chunk(self._turn, step=self._step, text=text)

    def _void(self) -> None:
        if self._given:
            self._given.clear()
            self._events.retry(self._turn, step=self._step)
