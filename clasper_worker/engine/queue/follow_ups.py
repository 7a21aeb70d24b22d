"""Where a task of a customer's own app goes that follows one of ours: links, chains, chords.

Our worker sends it when ours has ended. Without a queue of its own it would go to our default one,
where no worker knows it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kombu import Exchange, Queue

from clasper_worker.config.settings import get_settings

OUR_TASKS = ("clasper.", "celery.")
"""What the names of tasks begin with that our workers have."""


def route_follow_up(
    name: str,
    args: Any,
    kwargs: Any,
    options: Mapping[str, Any],
    task: Any = None,
    **_: Any,
) -> dict[str, Any] | None:
    """Celery's router (``task_routes``): None where the task's own options, or ours, hold.

    Args:
        name: the task's.
        args: not looked at.
        kwargs: not looked at.
        options: that it is sent with.
        task: the task, where it is one of our app's.
    """
    del args, kwargs
    has_place = any(options.get(place) for place in ("queue", "exchange", "routing_key"))
    if task is not None or name.startswith(OUR_TASKS) or has_place:
        return None
    queue = get_settings().clasper_callback_queue
    # A queue of its own, not its name: by that Celery would add it to those which we consume.
    return {"queue": Queue(queue, Exchange(queue), routing_key=queue)}


def no_such_task(name: object) -> str:
    """Why a message is refused that names a task which no worker of ours has."""
    shown = str(name)[:200]
    return (
        f"no such task: {shown}. Workers of Clasper have tasks named clasper.* alone: send it to a"
        " queue of your own worker (queue=…, or that app's task_default_queue; as a link or in a"
        " chain without a queue it goes to CLASPER_CALLBACK_QUEUE)"
    )
