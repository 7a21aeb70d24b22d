"""The Celery app that these tests' workers run: turns that wait to be let go, and note it."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

from celery import Celery

from clasper_worker.celery import TRANSPORT
from clasper_worker.engine.pool.setup import install
from clasper_worker.engine.pool.task import CoroutineTask

URL = os.environ["TURN_APP_REDIS"]
FOLDER = Path(os.environ["TURN_APP_FOLDER"])

app = Celery("turns", broker=URL, backend=URL)
app.conf.update(
    broker_transport=TRANSPORT,
    broker_transport_options={
        "schedule_rules": {"lease_seconds": float(os.environ["TURN_APP_LEASE"])},
        # kombu's own restoring, which must not happen here, would do so at once.
        "visibility_timeout": 1,
        "unacked_restore_interval": 0.2,
        "unacked_restore_throttle": 1,
    },
    task_acks_late=True,
    task_track_started=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_channel_error_retry=True,
    accept_content=["json"],
)
install(app)
app.conf.worker_consumer = "clasper_worker.engine.queue.bootsteps:TurnConsumer"
app.conf.clasper_dead_letter_reporter = "clasper_worker.completion.dead_letters:Burials"
app.steps["consumer"].add("clasper_worker.engine.queue.bootsteps:KeepLeases")


def note(what: str, job: str) -> None:
    """One line, whole or not at all, in a file that outlives Redis and this process."""
    descriptor = os.open(FOLDER / "notes", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, f"{what} {job} {os.getpid()}\n".encode())
    os.close(descriptor)


@app.task(base=CoroutineTask, bind=True, name="clasper.send")
async def send(self: CoroutineTask, *, message: str = "", **_: Any) -> int:
    """Wait for the file that the message names, if any."""
    note("start", self.request.id)
    try:
        while message and not (FOLDER / message).exists():  # noqa: ASYNC110 - set by another process
            await asyncio.sleep(0.02)
    except BaseException:
        note("cancel", self.request.id)
        raise
    note("end", self.request.id)
    return os.getpid()
