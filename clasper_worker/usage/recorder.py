"""Counting what jobs use: a listener on turns, and a meter for jobs that are none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog

from clasper_worker.engine.redis.scripts import State
from clasper_worker.errors import StateUnavailableError
from clasper_worker.llm.cost import spend_by_model
from clasper_worker.llm.messages import ChatMessage, ChatModel, ModelReply, ToolSpec
from clasper_worker.observability.events import ModelSpend, TurnEnd, TurnEvents, TurnReference
from clasper_worker.usage.counters import Spender, count_usage

_MAX_PENDING = 10_000
_PAUSE_SECONDS = 1.0
_CLOSE_SECONDS = 1.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Count:
    spender: Spender
    spent: Sequence[ModelSpend]
    moment: datetime


class UsageRecorder(TurnEvents):
    """Writes usage to the shared counters, beside the turns, which it neither delays nor fails.

    A write leaves in the same round trip as what turns record at that moment. While Redis is away
    writes wait, up to a number; a process that is killed loses those of the last moment.

    Args:
        state: our own state's Redis.
        ttl_seconds: how long a job may run again.
        workspace: the name of a turn's workspace, by what its request asks for and its user.
        now: the time.

    Attributes:
        workspace: as given.
    """

    def __init__(
        self,
        state: State,
        *,
        ttl_seconds: int,
        workspace: Callable[[str | None, str], str],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._state = state
        self._ttl = ttl_seconds
        self.workspace = workspace
        self._now = now
        self._pending: dict[asyncio.Task[None], _Count] = {}
        self._unwritten: list[_Count] = []

    def ended(self, turn: TurnReference, end: TurnEnd) -> None:
        """Count a turn, unless another run of it goes on."""
        if end.spent and end.outcome != "lost":
            workspace = self.workspace(turn.workspace, turn.user_id)
            self.count(Spender(turn.turn_id, turn.user_id, turn.role, workspace), end.spent)

    def count(self, spender: Spender, spent: Sequence[ModelSpend]) -> None:
        """Count what a job has used in all its runs; at once, and without waiting for it."""
        if not spent:
            return
        if len(self._pending) >= _MAX_PENDING:
            log.error("usage.not_counted", reason="too many counts wait for Redis")
            return
        count = _Count(spender, tuple(spent), self._now())
        task = asyncio.get_running_loop().create_task(self._write_until_done(count))
        self._pending[task] = count
        task.add_done_callback(self._written)

    @contextmanager
    def metered(self, spender: Spender) -> Iterator[Meter]:
        """Count what the models used that the job asks through the meter, however it ends."""
        meter = Meter()
        try:
            yield meter
        finally:
            self.count(spender, spend_by_model(meter.replies))

    async def close(self) -> None:
        """Write what was cut off by the end of the loop, as far as Redis answers soon."""
        left = [*self._unwritten, *self._pending.values()]
        for task in tuple(self._pending):
            task.cancel()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await asyncio.gather(*map(self._write, left))
        except (StateUnavailableError, TimeoutError):
            log.error("usage.not_counted", reason="Redis did not answer", jobs=len(left))  # noqa: TRY400 - no fault of ours
        self._unwritten.clear()

    async def _write_until_done(self, count: _Count) -> None:
        while True:
            try:
                return await self._write(count)
            except StateUnavailableError as exc:
                log.warning("usage.waits_for_redis", error=exc.code)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _write(self, count: _Count) -> None:
        await count_usage(
            self._state,
            count.spender,
            count.spent,
            moment=count.moment,
            ttl_seconds=self._ttl,
        )

    def _written(self, task: asyncio.Task[None]) -> None:
        count = self._pending.pop(task)
        if task.cancelled():
            self._unwritten.append(count)
        elif (exc := task.exception()) is not None:
            log.error("usage.not_counted", reason=type(exc).__name__)


@dataclass(frozen=True, slots=True)
class Meter:
    """Remembers what models answered to one job."""

    replies: list[ModelReply] = field(default_factory=list)

    def of(self, model: ChatModel) -> ChatModel:
        """The model, measured."""
        return _MeteredModel(model, self.replies)


@dataclass(frozen=True, slots=True)
class _MeteredModel:
    _model: ChatModel
    _replies: list[ModelReply]

    async def complete(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolSpec] = (), **options: Any
    ) -> ModelReply:
        """See `ChatModel.complete`."""
        reply = await self._model.complete(messages, tools, **options)
        self._replies.append(reply)
        return reply
