"""One run of an agent turn, from its request to its posted reply."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import structlog
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.engine.pool.soft_limit import SoftLimitScope
from clasper_worker.errors import (
    ClasperError,
    LeaseLostError,
    StateUnavailableError,
    TurnCancelledError,
    TurnTimeoutError,
)
from clasper_worker.llm.cost import spend_by_model
from clasper_worker.llm.messages import ModelReply
from clasper_worker.observability.events import Outcome as Ended
from clasper_worker.observability.events import ReportedTurn, TurnEnd, TurnReference, running_turn
from clasper_worker.observability.stopwatch import stopwatch
from clasper_worker.observability.trace_context import continue_trace
from clasper_worker.turn.context import TurnDependencies
from clasper_worker.turn.conversation import Conversation, open_conversation
from clasper_worker.turn.deliver import Posts, timed_out
from clasper_worker.turn.journal import Outcome, TurnJournal
from clasper_worker.turn.journal_store import ledger_key, request_digest
from clasper_worker.turn.models import ResolvedTask, RolledBack, TurnIdentity, TurnResult
from clasper_worker.turn.request import SendRequest
from clasper_worker.turn.streamed_text import StreamedText
from clasper_worker.turn.task_thread import resolve_task

GRACE_SECONDS = 20.0
_LAST_SECONDS = 3.0  # for what is recorded at the end of a run, whatever that is
TIMED_OUT_TEXT = (
    "I ran out of time and stopped before I had an answer. What was done until then stays done;"
    " please ask again, perhaps for a smaller part."
)

log = structlog.get_logger(__name__)


class TurnRun:
    """One run of a turn: what it works with, and how far it has come.

    Args:
        request: what is asked for.
        identity: which turn it is, and which job runs it.
        deps: its collaborators.
        kind: what asked for it, for its events: see `TurnReference`.
        run: the run's number, likewise.
        rolled_back: what a turn had stored that was cancelled for this one.

    Attributes:
        journal: what earlier runs have recorded, and this one records; None before `begin`.
        task: the Mission Control task; None until it is known.
    """

    def __init__(
        self,
        request: SendRequest,
        identity: TurnIdentity,
        deps: TurnDependencies,
        *,
        kind: str = "send",
        run: int = 0,
        rolled_back: RolledBack | None = None,
    ) -> None:
        self.request = request
        self.identity = identity
        self.deps = deps
        self.journal: TurnJournal | None = None
        self.task: ResolvedTask | None = None
        self._rolled_back = rolled_back
        self._replies: Sequence[ModelReply] | None = None
        self._resumed = False
        self._reported = ReportedTurn(
            TurnReference(
                turn_id=identity.turn_id,
                job_id=identity.job_id,
                trace_id=identity.trace_id,
                user_id=request.user_id,
                session_key=request.session,
                role=request.role,
                kind=kind,
                workspace=request.metadata.workspace,
                run=run,
                streamed=request.stream or deps.settings.streams_always,
            ),
            deps.events,
        )
        self._streamed = StreamedText(self._reported)

    async def within_limits(self, *, grace_seconds: float = GRACE_SECONDS) -> TurnResult:
        """Run the turn; at its soft time limit stop it, say so in its task, and fail.

        Raises:
            TurnTimeoutError: the soft time limit passed before there was a reply.
            LeaseLostError: another run has taken the turn over, and is the one to end it.
            ClasperError: the turn failed.
        """
        async with self._ending():
            try:
                async with SoftLimitScope():
                    return await self._run()
            except SoftTimeLimitExceeded:
                log.warning("turn.timed_out")
            return await self.time_out(grace_seconds)

    async def run(self) -> TurnResult:
        """Decide the turn's outcome and post it; what earlier runs did is not done again.

        A turn that has ended returns its result without any request.

        Raises:
            SoftTimeLimitExceeded: this run and earlier ones together took longer than the limit.
            ClasperError: the turn failed; nothing empty was posted, and what was posted carries
                keys under which a repetition of the turn posts nothing twice.
        """
        async with self._ending():
            return await self._run()

    async def _run(self) -> TurnResult:
        journal = await self.begin()
        if journal.result is not None:
            return journal.result
        if journal.has_timed_out:
            raise timed_out()
        outcome = journal.outcome or await self.think(journal)
        return await self.deliver(journal, outcome)

    async def begin(self) -> TurnJournal:
        """Claim the turn for this request, and read what earlier runs recorded."""
        journal = self.journal = await TurnJournal.open(
            self.deps.ledger,
            ledger_key(self.request, self.identity),
            request_digest(self.request),
            streamed=self._reported.turn.streamed,
        )
        self.deps = replace(self.deps, on_created=journal.note_made)
        if journal.opening is not None:
            self.task = journal.opening.task
        if journal.has_begun or journal.was_streamed:
            self._streamed.resume()
        self._resumed = journal.has_begun
        self._reported.events.started(
            self._reported.turn, resumed=self._resumed, queue_seconds=stopwatch().queue
        )
        return journal

    async def think(self, journal: TurnJournal) -> Outcome:
        """Resolve the task, build the prompt, converse; go on where an earlier run stopped."""
        async with _time_left(journal, self.deps.settings.soft_limit_seconds):
            conversation = await self._open(journal)
            while True:
                answer = await conversation.answer()
                decided = conversation.outcome(answer)
                await self._streamed.kept()
                outcome = await journal.conclude(len(answer.replies), answer.replies[-1], decided)
                if outcome is not None:
                    self._replies = answer.replies
                    return outcome
                # Another run's reply to this step was recorded first: the conversation follows it.

    async def deliver(self, journal: TurnJournal, outcome: Outcome) -> TurnResult:
        """Post a decided outcome, again or for the first time, and end the turn accordingly."""
        if outcome.kind == "reply":
            self._streamed.conclude(None, outcome.text)
        posts = Posts(self.request, self.identity, self.deps, self._reported)
        return await posts.finish(journal, outcome, self._rolled_back)

    async def time_out(self, grace_seconds: float = GRACE_SECONDS) -> TurnResult:
        """Say in the turn's task that time ran out, unless the reply was decided just before.

        Reply and timeout are outcomes of one turn, of which the journal keeps the first, posted
        under one key: a task gets one of the two, never both, whenever the limit strikes. A run of
        the turn at another time ends the same way.

        Raises:
            TurnTimeoutError: time ran out before there was a reply.
            LeaseLostError: another run has taken the turn over, and is the one to end it.
        """
        if self.task is not None and self.journal is not None:
            outcome = Outcome(kind="timed_out", task_id=self.task.id, text=TIMED_OUT_TEXT)
            try:
                async with asyncio.timeout(grace_seconds):
                    outcome = await self.journal.decide(outcome)
                    return await self.deliver(self.journal, outcome)
            except (TurnTimeoutError, LeaseLostError):
                raise
            except (ClasperError, TimeoutError) as exc:
                log.warning("turn.timeout_not_posted", error=type(exc).__name__)
        raise TurnTimeoutError(
            "The turn took longer than its soft time limit (CLASPER_TURN_SOFT_LIMIT_SEC)"
        )

    async def _open(self, journal: TurnJournal) -> Conversation:
        # First, since a workspace that there is not ends the turn before a task is made for it.
        workspace = self.deps.workspace(self.request.metadata.workspace, self.request.user_id)
        backend = self.deps.backend(self.request)
        if self.task is None:
            self.task = await resolve_task(
                self.request,
                backend,
                self.deps.tasks,
                default_title=self.deps.settings.default_task,
            )
        return await open_conversation(
            self.request,
            self.deps,
            workspace,
            backend,
            self.task,
            journal,
            self._reported,
            self._streamed,
        )

    async def _made_kept_in_time(self) -> None:
        with suppress(TimeoutError, StateUnavailableError):
            async with asyncio.timeout(_LAST_SECONDS):
                if self.journal is not None:
                    await self.journal.keep_made()

    @asynccontextmanager
    async def _ending(self) -> AsyncIterator[None]:
        """Report the run's end, whatever it is."""
        outcome: Ended = "ok"
        code = None
        try:
            continue_trace(self.identity.trace_id)
            with running_turn(self._reported):
                yield
        except BaseException as exc:
            outcome, code = _how_it_ended(exc)
            raise
        finally:
            await self._streamed.kept_in_time()
            await self._made_kept_in_time()
            decided = self.journal.outcome if self.journal is not None else None
            cost = decided.cost if decided is not None else None
            spent = stopwatch().told()
            replies = self._replies
            if replies is None:  # decided by another run, or not at all
                replies = self.journal.replies() if self.journal is not None else ()
            self._reported.events.ended(
                self._reported.turn,
                TurnEnd(
                    outcome=outcome,
                    code=code,
                    seconds=spent["total"] or 0.0,
                    model_seconds=spent["model"] or 0.0,
                    tool_seconds=spent["tools"] or 0.0,
                    backend_seconds=spent["backend"] or 0.0,
                    queue_seconds=spent["queue"],
                    lane_seconds=stopwatch().lane,
                    resumed=self._resumed,
                    cost_usd=None if cost is None else cost.totalCost,
                    model=None if cost is None else cost.model,
                    spent=spend_by_model(replies),
                ),
            )


def _how_it_ended(exc: BaseException) -> tuple[Ended, str | None]:
    if isinstance(exc, LeaseLostError):
        return "lost", exc.code
    if isinstance(exc, TurnTimeoutError | SoftTimeLimitExceeded):
        return "timed_out", TurnTimeoutError.code
    if isinstance(exc, TurnCancelledError | asyncio.CancelledError):
        return "cancelled", None
    return "failed", exc.code if isinstance(exc, ClasperError) else "unexpected"


@asynccontextmanager
async def _time_left(journal: TurnJournal, limit_seconds: float | None) -> AsyncIterator[None]:
    """Count what earlier runs of the turn took towards its soft limit."""
    if limit_seconds is None or not journal.spent_before:
        yield
        return
    left = limit_seconds - journal.spent_before
    if left <= 0:
        raise SoftTimeLimitExceeded(limit_seconds)
    try:
        async with asyncio.timeout(left) as scope:
            yield
    except TimeoutError:
        if scope.expired():
            raise SoftTimeLimitExceeded(limit_seconds) from None
        raise
