"""When things run; nothing else. Run it with ``celery -A beat_schedule beat`` or ``clasper beat``.

Nothing is scheduled yet: the periodic jobs (dispatcher, heartbeats, standups) are listed here as
they arrive.
"""

from clasper_worker.celery import app

__all__ = ["app"]  # Celery's -A looks for it here

app.conf.beat_schedule = {}
