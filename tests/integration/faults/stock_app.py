"""A customer's Celery app on the same Redis: stock Celery, kombu's own transport, nothing of ours.

Its name is that of the app in `turn_app`, and kombu's names for its keys are the default ones.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import redis
from celery import Celery

URL = os.environ["TURN_APP_REDIS"]
FOLDER = Path(os.environ["TURN_APP_FOLDER"])

app = Celery("turns", broker=URL, backend=URL)
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
    broker_transport_options={
        # Its own, by which it takes back what a killed worker of its had.
        "visibility_timeout": float(os.environ.get("STOCK_VISIBILITY", "3600")),
        "unacked_restore_interval": 0.2,
        "unacked_restore_throttle": 1,
    },
)


@app.task(bind=True, name="theirs.wait")
def wait(self: Any, key: str) -> int:
    """Wait until something lies in that list of Redis."""
    with (FOLDER / "notes").open("a") as notes:
        notes.write(f"start {self.request.id} {os.getpid()}\n")
    with redis.Redis.from_url(URL, socket_timeout=None) as client:
        client.blpop([key], timeout=0)
    return os.getpid()
