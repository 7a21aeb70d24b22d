"""When things run; nothing else. Run it with ``celery -A beat_schedule beat`` or ``clasper beat``.

Ticks come often and cheaply. What is due at one is decided by the job itself, from notes that all
workers share: a tick that is repeated, or comes from a second Beat, does nothing again, and one
that is missed is made good by the next. See ``clasper_worker/jobs/``.
"""

from typing import Any

from clasper_worker.celery import app, settings_of_the_app

__all__ = ["app"]  # Celery's -A looks for it here

settings = settings_of_the_app()


def every(seconds: float, task: str) -> dict[str, Any]:
    """A tick that is dropped where no worker takes it in time, and whose result nobody keeps."""
    options = {"queue": "clasper.periodic", "expires": 10 * seconds, "ignore_result": True}
    return {"task": task, "schedule": seconds, "options": options}


# Beat sends ticks alone, which would bury the turns in Flower.
app.conf.task_send_sent_event = False
app.conf.beat_schedule = {
    # Polls undelivered notifications, less often while there are none (DISPATCH_MAX_INTERVAL_SEC).
    "dispatch": every(settings.dispatch_min_interval_sec, "clasper.dispatch"),
    # Each agent's heartbeat, once in CLASPER_HEARTBEAT_INTERVAL_SEC and spread over it.
    "heartbeats": every(10.0, "clasper.heartbeats"),
    # Each agent's standup, once a day after CLASPER_STANDUP_AT of its own time zone.
    "standups": every(15.0, "clasper.standups"),
}
