"""The product's Beat schedule with its ticks in a queue of their own: ``celery -A ticks beat``.

A worker of that queue alone runs the ticks, and none of what they enqueue.
"""

from beat_schedule import app

__all__ = ["app"]  # Celery's -A looks for it here

TICK_QUEUE = "bench.ticks"

for entry in app.conf.beat_schedule.values():
    entry["options"]["queue"] = TICK_QUEUE
