"""What the tasks of a process share: opened once for each event loop, when first used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Self

from clasper_worker.celery import app
from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.engine.pool.bridge import start_on_process_loop
from clasper_worker.engine.pool.loop_local import LoopLocal
from clasper_worker.engine.queue.cancellations import CancelledRuns
from clasper_worker.engine.queue.dead_letters import Doom
from clasper_worker.engine.queue.delivery import Groups
from clasper_worker.engine.queue.scheduler import open_schedule
from clasper_worker.engine.queue.scheduler_types import QueuedTurn
from clasper_worker.engine.redis.scripts import State, redis_client
from clasper_worker.errors import ClasperError
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.observability.events import TurnReference
from clasper_worker.periodic.acknowledge import Acknowledgements
from clasper_worker.periodic.agents import Roster
from clasper_worker.periodic.dispatch import Dispatcher, DispatchRules
from clasper_worker.periodic.enqueue import CeleryQueue
from clasper_worker.periodic.fan_out import FanOut
from clasper_worker.periodic.notes import Slots
from clasper_worker.runtime import Runtime
from clasper_worker.webhooks.outbox import Outbox, publish
from clasper_worker.webhooks.sender import WebhookSender


async def _open_runtime() -> Runtime:
    return await Runtime.open(get_settings())


async def _open_webhook_sender() -> WebhookSender:
    return WebhookSender.from_settings(get_settings())


async def _open_outbox() -> Outbox:
    return Outbox(lambda delivery: publish(app, delivery))


async def _open_doom() -> Doom:
    return Doom(open_schedule(get_settings()))


async def _open_groups() -> Groups:
    return Groups(open_schedule(get_settings()))


async def _open_cancelled() -> CancelledRuns | None:
    return CancelledRuns.open(get_settings())


async def _close_cancelled(runs: CancelledRuns | None) -> None:
    if runs is not None:
        await runs.close()


class Jobs:
    """The jobs' connections. Make it inside the loop that will use it, with `open`.

    Attributes:
        settings: the operator's.
        slots: notes and locks that all workers share.
        queue: where jobs enqueue others.
        acknowledgements: of notifications.
        fan_out: of heartbeats and standups.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._redis = redis_client(settings.redis_url, settings)
        self._state = State(self._redis)
        self.slots = Slots(self._state)
        self.queue = CeleryQueue(ClasperClient.from_settings(settings))
        self.fan_out = FanOut(self.slots, self.queue)
        self._roster: Roster | None = None
        self.acknowledgements = Acknowledgements(self.slots, self.queue)

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """Wire everything up. Nothing is connected to yet."""
        return cls(settings)

    def dispatcher(self, backend: InternalBackend) -> Dispatcher:
        """A dispatcher of this backend's notifications."""
        rules = DispatchRules.from_settings(self.settings)
        return Dispatcher(backend, self.slots, self.queue, rules)

    def roster(self, backend: InternalBackend) -> Roster:
        """The agents, as the settings or this backend name them; always the same one."""
        self._roster = self._roster or Roster(self.settings, backend)
        return self._roster

    async def close(self) -> None:
        """Close the connections."""
        self.queue.close()
        await self._state.aclose()
        await self._redis.aclose()


async def _open_jobs() -> Jobs:
    return Jobs.open(get_settings())


RUNTIME: LoopLocal[Runtime] = LoopLocal(_open_runtime, close=Runtime.close)
WEBHOOK_SENDER: LoopLocal[WebhookSender] = LoopLocal(
    _open_webhook_sender, close=WebhookSender.close
)
OUTBOX: LoopLocal[Outbox] = LoopLocal(_open_outbox, close=Outbox.close)
DOOM: LoopLocal[Doom] = LoopLocal(_open_doom, close=Doom.close)
GROUPS: LoopLocal[Groups] = LoopLocal(_open_groups, close=Groups.close)
CANCELLED: LoopLocal[CancelledRuns | None] = LoopLocal(_open_cancelled, close=_close_cancelled)
JOBS: LoopLocal[Jobs] = LoopLocal(_open_jobs, close=Jobs.close)


_reporting: set[asyncio.Task[None]] = set()


def report_queued(turns: Sequence[QueuedTurn]) -> None:
    """Report that these turns were taken in and wait for their session.

    From any thread. Nothing is reported where this process runs no turns, as the main one of the
    prefork pool.
    """

    def begin() -> None:
        task = asyncio.get_running_loop().create_task(_report_queued(turns))
        _reporting.add(task)
        task.add_done_callback(_reporting.discard)

    start_on_process_loop(begin)


async def _report_queued(turns: Sequence[QueuedTurn]) -> None:
    try:
        runtime = await RUNTIME.get()
    except ClasperError:  # nor can the turns be run, which says what is wrong
        return
    for one in turns:
        turn = TurnReference(
            turn_id=one.turn_id,
            job_id=one.job_id,
            trace_id="",
            user_id=one.user_id,
            session_key=one.session_key,
            role=one.session_key.rpartition(":")[2],
            kind="notification" if one.is_notification else "send",
        )
        runtime.turns.events.queued(turn, reason="session", ahead=one.ahead)
