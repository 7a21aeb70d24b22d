"""The Celery app that the workers of these tests run: tasks that show what a pool does."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from typing import Any

import redis.asyncio
from celery import Celery
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker.concurrency.context import current_job
from clasper_worker.concurrency.install import install
from clasper_worker.concurrency.interrupt import SoftLimitScope
from clasper_worker.concurrency.resources import LoopLocal
from clasper_worker.concurrency.task import CoroutineTask

URL = os.environ["PROBE_REDIS_URL"]

app = Celery("probe", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    task_track_started=os.environ.get("PROBE_TRACK","1")=="1",
    worker_prefetch_multiplier=1,
    worker_send_task_events=os.environ.get("PROBE_EVENTS","1")=="1",
    broker_connection_retry_on_startup=True,
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_transport_options={"visibility_timeout": 3600},
    worker_soft_shutdown_timeout=float(os.environ.get("PROBE_SOFT_SHUTDOWN", "0")),
)
if os.environ.get("PROBE_INSTALL", "1") == "1":
    install(app)
@app.task(base=CoroutineTask, name="probe.nothing", ignore_result=False)
async def nothing() -> None:
    """Return at once."""
