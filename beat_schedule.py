"""When things run; nothing else. Run it with ``celery -A beat_schedule beat`` or ``clasper beat``.

Ticks come often and cheaply. What is due at one is decided by the job itself, from notes that all
workers share: a tick that is repeated, or comes from a second Beat, does nothing again, and one
that is missed is made good by the next. The jobs: ``clasper_worker/periodic/registry.py``.
"""

from typing import Any

from clasper_worker.celery import app, settings_of_the_app
from clasper_worker.config.names import PERIODIC_QUEUE
from clasper_worker.periodic.registry import PERIODIC_JOBS, PeriodicJob

__all__ = ["app"]  # Celery's -A looks for it here

settings = settings_of_the_app()


def entry(job: PeriodicJob) -> dict[str, Any]:
    """A tick that is dropped where no worker takes it in time, and whose result nobody keeps."""
    seconds = job.seconds(settings)
    options = {"queue": PERIODIC_QUEUE, "expires": 10 * seconds, "ignore_result": True}
    return {"task": job.task, "schedule": seconds, "options": options}


# Beat sends ticks alone, which would bury the turns in Flower.
app.conf.task_send_sent_event = False
app.conf.beat_schedule = {job.name: entry(job) for job in PERIODIC_JOBS}
