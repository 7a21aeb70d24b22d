"""The Celery app that the workers of these tests run: tasks that show what a pool does."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from dataclasses import asdict
from typing import Any

import redis.asyncio
from celery import Celery, chord
from celery.exceptions import Reject, SoftTimeLimitExceeded

from clasper_worker.engine.pool.bridge import run_coroutine
from clasper_worker.engine.pool.context import current_job
from clasper_worker.engine.pool.loop_local import LoopLocal
from clasper_worker.engine.pool.setup import install
from clasper_worker.engine.pool.soft_limit import SoftLimitScope
from clasper_worker.engine.pool.task import CoroutineTask

URL = os.environ["PROBE_REDIS_URL"]

app = Celery("probe", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_track_started=os.environ.get("PROBE_TRACK", "1") == "1",
    worker_prefetch_multiplier=1,
    worker_send_task_events=os.environ.get("PROBE_EVENTS", "1") == "1",
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss="PROBE_CANCEL_ON_LOSS" in os.environ,
    broker_transport_options={"client_name": "probe-broker"},  # by which Redis can close them
    worker_soft_shutdown_timeout=float(os.environ.get("PROBE_SOFT_SHUTDOWN", "0")),
)
install(app)


async def _connect() -> redis.asyncio.Redis:
    return redis.asyncio.Redis.from_url(URL, decode_responses=True)


async def _disconnect(client: redis.asyncio.Redis) -> None:
    await client.rpush("resource-closed", os.getpid())
    await client.aclose()


NOTES: LoopLocal[redis.asyncio.Redis] = LoopLocal(_connect, close=_disconnect)
"""Where the tasks note what happened to them, for the tests to read."""


async def _note(key: str, text: str) -> None:
    await (await NOTES.get()).rpush(key, text)


class _InFlight:
    now = 0
    peak = 0
    barriers: dict[str, asyncio.Barrier] = {}  # noqa: RUF012  # one process, one loop


@app.task(base=CoroutineTask, name="probe.nothing")
async def nothing() -> None:
    """Return at once."""


@app.task(base=CoroutineTask, name="probe.unspeakable")
async def unspeakable() -> object:
    """Return what is not JSON."""
    return object()


@app.task(base=CoroutineTask, bind=True, name="probe.echo")
async def echo(self: CoroutineTask, value: Any) -> dict[str, Any]:
    await asyncio.sleep(0)
    job = current_job()
    return {
        "value": value,
        "job": None if job is None else asdict(job),
        "request_id": self.request.id,
        "pid": os.getpid(),
        "thread": threading.current_thread().name,
    }


@app.task(base=CoroutineTask, name="probe.hold")
async def hold(key: str, seconds: float = 60.0) -> str:
    """Wait, and note how it ended."""
    await _note(key, "started")
    try:
        await asyncio.sleep(seconds)
    except BaseException as exc:
        await _note(key, type(exc).__name__.lstrip("_"))
        raise
    await _note(key, "finished")
    return "finished"


@app.task(base=CoroutineTask, name="probe.hold_early", acks_late=False)
async def hold_early(key: str, seconds: float = 60.0) -> str:
    """As hold, acknowledged when it starts."""
    return await hold.run(key, seconds)


@app.task(base=CoroutineTask, name="probe.say_goodbye")
async def say_goodbye(key: str, overstay: float = 0.0) -> None:
    """Note one last thing at the soft limit, and then perhaps stay longer than it may."""
    try:
        await asyncio.sleep(60)
    except SoftTimeLimitExceeded as exc:
        await asyncio.sleep(0.05)
        await _note(key, f"goodbye {exc.args[0]}")
        await asyncio.sleep(overstay)
        raise


@app.task(base=CoroutineTask, name="probe.swallow")
async def swallow(key: str) -> None:
    """Call a library that retries on every Exception, inside a scope that it cannot swallow."""
    try:
        async with SoftLimitScope():
            while True:
                try:
                    await asyncio.sleep(60)
                except Exception:  # noqa: BLE001  # as such libraries do
                    await _note(key, "swallowed")
    except SoftTimeLimitExceeded:
        await _note(key, "limited")
        raise


@app.task(base=CoroutineTask, name="probe.fail")
async def fail(text: str) -> None:
    await asyncio.sleep(0)
    raise ValueError(text)


@app.task(base=CoroutineTask, name="probe.exit")
async def leave() -> None:
    await asyncio.sleep(0)
    raise SystemExit(3)


@app.task(base=CoroutineTask, name="probe.reject")
async def reject() -> None:
    await asyncio.sleep(0)
    raise Reject("not for me", requeue=False)


@app.task(base=CoroutineTask, bind=True, name="probe.retry", max_retries=5)
async def retry(self: CoroutineTask, times: int, pause: float = 0.0) -> int:
    await asyncio.sleep(0)
    if self.request.retries < times:
        raise self.retry(countdown=pause)
    return int(self.request.retries)


@app.task(
    base=CoroutineTask,
    bind=True,
    name="probe.autoretry",
    autoretry_for=(ValueError,),
    retry_kwargs={"countdown": 0, "max_retries": 5},
)
async def autoretry(self: CoroutineTask, times: int, pause: float = 0.0) -> int:
    await asyncio.sleep(0)
    if self.request.retries < times:
        await asyncio.sleep(pause)
        raise ValueError("again")
    return int(self.request.retries)


@app.task(base=CoroutineTask, name="probe.meet")
async def meet(name: str, parties: int) -> int:
    """Return once ``parties`` of these are running at the same time."""
    barrier = _InFlight.barriers.setdefault(name, asyncio.Barrier(parties))
    async with asyncio.timeout(45):
        await barrier.wait()
    return parties


@app.task(name="probe.start_chord")
def start_chord(parties: int) -> tuple[str, list[str]]:
    """Start a chord of tasks that meet; the ids of its body and of its members."""
    sent = chord([meet.s("chord", parties) for _ in range(parties)])(echo.s())
    return sent.id, [member.id for member in sent.parent.results]


@app.task(base=CoroutineTask, name="probe.count")
async def count(seconds: float) -> int:
    """How many of these ran at a time, at most, so far."""
    _InFlight.now += 1
    _InFlight.peak = max(_InFlight.peak, _InFlight.now)
    await asyncio.sleep(seconds)
    _InFlight.now -= 1
    return _InFlight.peak


@app.task(name="probe.plain")
def plain(seconds: float) -> str:
    time.sleep(seconds)
    return threading.current_thread().name


@app.task(name="probe.bridged")
def bridged(value: int) -> int:
    """A plain function that needs a coroutine."""

    async def double() -> int:
        await asyncio.sleep(0)
        return value * 2

    return run_coroutine(double())
