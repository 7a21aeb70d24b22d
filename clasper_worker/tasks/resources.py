"""What the tasks of a process share: opened once for each event loop, when first used."""

from __future__ import annotations

from clasper_worker.broker.cancellations import CancelledRuns
from clasper_worker.broker.collected import Groups
from clasper_worker.broker.doom import Doom
from clasper_worker.broker.schedule import open_schedule
from clasper_worker.celery import app
from clasper_worker.concurrency.resources import LoopLocal
from clasper_worker.jobs.jobs import Jobs
from clasper_worker.runtime import Runtime
from clasper_worker.settings import get_settings
from clasper_worker.webhooks.courier import Courier
from clasper_worker.webhooks.outbox import Outbox, publish


async def _open_runtime() -> Runtime:
    return await Runtime.open(get_settings())


async def _open_courier() -> Courier:
    return Courier.from_settings(get_settings())


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


async def _open_jobs() -> Jobs:
    return Jobs.open(get_settings())


RUNTIME: LoopLocal[Runtime] = LoopLocal(_open_runtime, close=Runtime.close)
COURIER: LoopLocal[Courier] = LoopLocal(_open_courier, close=Courier.close)
OUTBOX: LoopLocal[Outbox] = LoopLocal(_open_outbox, close=Outbox.close)
DOOM: LoopLocal[Doom] = LoopLocal(_open_doom, close=Doom.close)
GROUPS: LoopLocal[Groups] = LoopLocal(_open_groups, close=Groups.close)
CANCELLED: LoopLocal[CancelledRuns | None] = LoopLocal(_open_cancelled, close=_close_cancelled)
JOBS: LoopLocal[Jobs] = LoopLocal(_open_jobs, close=Jobs.close)
