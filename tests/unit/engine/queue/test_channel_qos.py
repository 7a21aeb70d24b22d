"""Which deliveries run, as one thread asks while others begin and end them."""

from __future__ import annotations

import sys
import threading

from celery.worker import state as worker_state

from clasper_worker.engine.queue.channel import active_requests


class _Request:
    """What the worker runs."""


def test_what_runs_can_be_listed_while_other_threads_begin_and_end_requests() -> None:
    always = [_Request() for _ in range(200)]
    stop = threading.Event()
    before = sys.getswitchinterval()

    def churn() -> None:
        while not stop.is_set():
            some = [_Request() for _ in range(20)]
            for one in some:
                worker_state.active_requests.add(one)
            for one in some:
                worker_state.active_requests.discard(one)

    threads = [threading.Thread(target=churn) for _ in range(3)]
    sys.setswitchinterval(1e-6)
    try:
        for one in always:
            worker_state.active_requests.add(one)
        for thread in threads:
            thread.start()
        for _ in range(300):
            assert set(always) <= set(active_requests())
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
        sys.setswitchinterval(before)
        for one in always:
            worker_state.active_requests.discard(one)
