"""What loads Celery and the worker once for all the processes that these tests start."""

from collections.abc import Iterator

import pytest

from tests.chaos.workers import Nursery

# What workers, `clasper` commands and Celery's Beat load, but for `clasper_worker.tasks`: its tasks
# become those of every app in the process, and these tests have apps of their own.
MODULES = (
    "celery.bin.beat",
    "redbeat",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "clasper_worker.engine.queue.delivery",
    "clasper_worker.engine.queue.bootsteps",
    "clasper_worker.celery",
    "clasper_worker.cli.backend",
    "clasper_worker.cli.beat",
    "clasper_worker.cli.dead_letters",
    "clasper_worker.cli.dispatch",
    "clasper_worker.cli.heartbeat",
    "clasper_worker.cli.offline_model",
    "clasper_worker.cli.serve",
    "clasper_worker.cli.standup",
    "clasper_worker.engine.pool.pool",
    "clasper_worker.engine.pool.task",
    "clasper_worker.periodic.heartbeat",
    "clasper_worker.process",
    "clasper_worker.periodic.standup",
    "clasper_worker.runtime",
    "clasper_worker.turn.compact",
    "clasper_worker.webhooks.sender",
)


@pytest.fixture(scope="session")
def nursery() -> Iterator[Nursery]:
    with Nursery(modules=MODULES) as nursery:
        yield nursery
