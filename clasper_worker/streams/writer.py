"""Writes the events of a process's turns to Redis: a listener of the worker.

What many turns report within some milliseconds leaves in one call of one script; a turn has one
batch on its way at a time, so its events stay in order, and a batch whose answer was lost is sent
again under its number, so none is there twice. See ``append.lua`` for the fence.

Where Redis is away the turn goes on. What was reported meanwhile leaves when Redis is back; what
Redis has lost the run says anew; and what nobody could write the reader takes from the result.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import structlog

from clasper_worker.engine.redis.scripts import Argument, State, StateScript
from clasper_worker.errors import StateUnavailableError
from clasper_worker.observability.events import TurnEnd, TurnEvents, TurnReference
from clasper_worker.streams.keys import KEPT_SECONDS, MOST_BYTES, job_key, run_key, stream_key
from clasper_worker.streams.pending import PendingRun

log = structlog.get_logger(__name__)

CHUNK_SECONDS = 0.03
"""How long text waits for more of it, at most; the first of a step does not wait."""
UNSTREAMED_SECONDS = 0.2
"""How long the events of turns wait that are not streamed; their end waits as text does."""
FLUSH_SECONDS = 2.0
"""How long a turn waits until what it reported is kept; then it goes on all the same."""
_TOGETHER_SECONDS = 0.01  # what is due so soon leaves with what is due now
_RUNS_AT_ONCE = 200
_PAUSE_SECONDS = 1.0
_OVER = {"ok": "ok", "failed": "no", "timed_out": "no"}

_APPEND = StateScript(files("clasper_worker.streams").joinpath("append.lua").read_text("utf-8"))


class StreamWriter(TurnEvents):
    """Listens to the turns of one event loop.

    Args:
        state: our own state's Redis, whose round trips the turns share.
        running_seconds: how long a stream is kept after its last event while its turn is not over:
            longer than any turn runs.
        most_bytes: of a turn's stream.
    """

    def __init__(self, state: State, *, running_seconds: int, most_bytes: int = MOST_BYTES) -> None:
        self._state = state
        self._running_seconds = running_seconds
        self._most_bytes = most_bytes
        self._runs: dict[tuple[str, int], PendingRun] = {}
        self._dirty: dict[int, PendingRun] = {}  # by their objects' ids, in order
        self._timer: asyncio.Handle | None = None
        self._at = 0.0  # when it is due; uvloop's own cannot be asked where that is at once
        self._sender: asyncio.Task[None] | None = None
        self._is_due = False  # something is, since the sender looked
        self._has_failed = False  # the last call

    def started(self, turn: TurnReference, *, resumed: bool, queue_seconds: float | None) -> None:
        """See `TurnEvents.started`."""
        del queue_seconds
        number = turn.run or time.time_ns() // 1000
        run = self._runs[turn.job_id, turn.run] = PendingRun(turn, number)
        self._add(
            turn,
            {
                "type": "start",
                "job_id": turn.job_id,
                "turn_id": turn.turn_id,
                "trace_id": turn.trace_id,
                "resumed": resumed,
                "streamed": turn.streamed,
            },
        )
        if turn.streamed:
            self._leave_in(run, CHUNK_SECONDS)

    def model_asked(self, turn: TurnReference, *, step: int) -> None:
        """See `TurnEvents.model_asked`."""
        run = self._runs.get((turn.job_id, turn.run))
        if run is not None:
            run.ask(step)
            self._leave_in(run, CHUNK_SECONDS if turn.streamed else UNSTREAMED_SECONDS)

    def chunk(self, turn: TurnReference, *, step: int, text: str) -> None:
        """See `TurnEvents.chunk`."""
        run = self._runs.get((turn.job_id, turn.run))
        if run is not None and text:
            is_first = run.write(step, text)
            if is_first or run.due is None:
                self._leave_in(run, 0.0 if is_first else CHUNK_SECONDS)

    def retry(self, turn: TurnReference, *, step: int) -> None:
        """See `TurnEvents.retry`."""
        run = self._runs.get((turn.job_id, turn.run))
        if run is not None:
            run.retry(step)
            self._leave_in(run, CHUNK_SECONDS)

    def tool_called(self, turn: TurnReference, *, step: int, index: int, tool: str) -> None:
        """See `TurnEvents.tool_called`."""
        self._add(
            turn, {"type": "tool", "phase": "call", "step": step, "index": index, "tool": tool}
        )

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
        said = {"type": "tool", "phase": "result", "step": step, "index": index, "tool": tool}
        self._add(turn, {**said, "chars": chars, "seconds": round(seconds, 3), "ok": succeeded})

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        """See `TurnEvents.waiting`."""
        self._add(turn, {"type": "waiting", "reason": reason, "seconds": seconds})

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        """See `TurnEvents.ended`.

        A run that was cancelled or lost ends no stream: another may go on, and what became of the
        job its stored result says.
        """
        run = self._runs.pop((turn.job_id, turn.run), None)
        if run is None:
            return
        run.is_over = True
        run.ended = _OVER.get(end.outcome, "")
        if run.ended:
            self._leave_in(run, CHUNK_SECONDS)

    async def flush(self, turn: TurnReference) -> None:
        """See `TurnEvents.flush`; waits for `FLUSH_SECONDS` at most."""
        run = self._runs.get((turn.job_id, turn.run))
        if run is None or (not run.has_pending and run.batch is None):
            return
        kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        run.waiters.append(kept)
        self._leave_in(run, 0.0)
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                await kept
        except TimeoutError:
            log.warning("stream.not_flushed", turn_id=turn.turn_id)

    async def close(self) -> None:
        """Write what is pending, if Redis takes it, and stop."""
        for run in self._dirty.values():
            run.due = 0.0
        while self._dirty or self._sender is not None:
            if self._timer is not None:
                self._timer.cancel()
            self._fire()
            assert self._sender is not None  # noqa: S101 - that is what firing makes
            _, late = await asyncio.wait([self._sender], timeout=FLUSH_SECONDS)
            if late or self._has_failed:
                break
        if self._timer is not None:
            self._timer.cancel()
        if self._sender is not None:
            self._sender.cancel()
        self._runs.clear()
        self._dirty.clear()

    def _add(self, turn: TurnReference, event: dict[str, Any]) -> None:
        run = self._runs.get((turn.job_id, turn.run))
        if run is not None:
            run.add(event)
            self._leave_in(run, CHUNK_SECONDS if turn.streamed else UNSTREAMED_SECONDS)

    # When it leaves

    def _leave_in(self, run: PendingRun, seconds: float) -> None:
        at = asyncio.get_running_loop().time() + seconds
        if run.due is not None and run.due <= at:
            return
        run.due = at
        self._dirty[id(run)] = run
        if self._timer is None or at < self._at:
            self._set_timer(at)

    def _set_timer(self, at: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._at = at
        self._timer = asyncio.get_running_loop().call_at(at, self._fire)

    def _fire(self) -> None:
        self._timer = None
        self._is_due = True
        if self._sender is None:
            # In a context of its own: it works for all turns.
            self._sender = asyncio.get_running_loop().create_task(
                self._send(), context=contextvars.Context()
            )

    async def _send(self) -> None:
        pause = 0.0
        try:
            while self._is_due:
                self._is_due = False
                self._has_failed = not await self._send_due()
                if self._has_failed:
                    pause = _PAUSE_SECONDS
                    break
        finally:
            self._sender = None
            if self._dirty:
                at = min(run.due or 0.0 for run in self._dirty.values())
                self._set_timer(max(at, asyncio.get_running_loop().time() + pause))

    async def _send_due(self) -> bool:
        """Send a batch of each run that is due; False where Redis took none."""
        by = asyncio.get_running_loop().time() + _TOGETHER_SECONDS
        due = [run for run in self._dirty.values() if run.due is not None and run.due <= by]
        for at in range(0, len(due), _RUNS_AT_ONCE):
            if not await self._send_some(due[at : at + _RUNS_AT_ONCE]):
                return False
        return True

    async def _send_some(self, runs: Sequence[PendingRun]) -> bool:
        keys: list[Argument] = []
        arguments: list[Argument] = [self._most_bytes]
        for run in runs:
            self._dirty.pop(id(run), None)
            run.due = None
            turn, batch = run.turn, run.batch or run.next_batch()
            keys += (stream_key(turn.turn_id), run_key(turn.turn_id))
            arguments += (run.number, batch.number, int(batch.anew), batch.first, batch.counts)
            arguments += (batch.ended, KEPT_SECONDS if batch.ended else self._running_seconds)
            is_named = turn.job_id != turn.turn_id and batch.number == 1
            arguments += (turn.job_id, job_key(turn.job_id) if is_named else "", turn.turn_id)
            arguments.append(batch.events)
        try:
            answers = await self._state.call(_APPEND, keys, arguments)
        except StateUnavailableError as exc:
            log.warning("streams.not_written", turns=len(runs), reason=str(exc))
            for run in runs:
                self._keep_for_later(run)
            return False
        for run, answer in zip(runs, answers, strict=True):
            self._settle(run, int(answer))
        return True

    def _settle(self, run: PendingRun, answer: int) -> None:
        batch, run.batch = run.batch, None
        if batch is None:
            return
        if answer == -1 and not batch.anew:
            run.lose()
            run.waiters += batch.waiters
        else:
            for kept in batch.waiters:
                if not kept.done():
                    kept.set_result(None)
            if answer in {0, -2}:  # another run has taken over: nothing of this one counts
                self._forget(run)
                return
        if batch.ended and answer == 1:
            self._forget(run)
        elif run.has_pending:
            self._leave_in(run, 0.0 if run.waiters else CHUNK_SECONDS)
        elif run.is_over:
            self._forget(run)

    def _keep_for_later(self, run: PendingRun) -> None:
        if run.is_over:  # its end is in the result
            self._forget(run)
            return
        run.due = asyncio.get_running_loop().time()
        self._dirty[id(run)] = run

    def _forget(self, run: PendingRun) -> None:
        known = (run.turn.job_id, run.turn.run)
        if self._runs.get(known) is run:
            del self._runs[known]
        self._dirty.pop(id(run), None)
        run.due = None
        for kept in run.waiters:
            if not kept.done():
                kept.set_result(None)
