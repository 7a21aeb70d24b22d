"""What the worker adds to the model's own time at 50 turns a second."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any

from backlog import QUEUE
from celery import Celery
from figures import in_ms
from plan import Plan
from rig import Rig
from turns import check_posts, make_turns, post_times

RATE = 50.0
MODEL_SECONDS = 0.2


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Send turns at random moments, never waiting for one, and time each until its reply arrives.

    A turn's time runs from just before ``send_task`` in the sender to the arrival of its reply at
    the backend, by one machine's monotonic clock; the model's time is taken off.
    """
    rig.behave(latency=MODEL_SECONDS)
    with rig.workers(warm_up=plan.warm_up) as workers:
        turns = make_turns(plan.latency_turns)
        rig.behave(latency=MODEL_SECONDS)
        sent: dict[str, float] = {}
        ids = {}
        gaps = random.Random(1)  # the same moments in each run
        with Celery("bench", broker=rig.broker.url, set_as_current=False) as app:
            due = time.monotonic() + 0.5
            for turn in turns:
                due += gaps.expovariate(RATE)
                time.sleep(max(due - time.monotonic(), 0.0))
                sent[turn.user_id] = time.monotonic()
                result = app.send_task("clasper.send", kwargs=turn.request(), queue=QUEUE)
                ids[result.id] = turn
            seconds = time.monotonic() - min(sent.values())
        rig.wait_for_posts(len(turns), workers)
        time.sleep(0.5)  # a reply that is posted twice comes later
        posts = rig.backend.ask("posts")
        rig.faults.add(check_posts(turns, posts))
        rig.faults.add(rig.backlog.check_results(ids))
    arrived = post_times(posts)
    added = [arrived[user] - sent[user] - MODEL_SECONDS for user in sent if user in arrived]
    figures = {
        "turns": len(turns),
        "turns_per_second": round(len(turns) / seconds, 1),
        "model_seconds": MODEL_SECONDS,
        "added_ms": in_ms(added, 50, 95, 99, 100),
    }
    say(f"added at {figures['turns_per_second']:g} turns/s: {figures['added_ms']} ms")
    return figures
