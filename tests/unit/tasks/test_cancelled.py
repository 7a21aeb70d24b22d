"""A job that is cancelled, on a broker that cannot be asked for its message back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.exceptions import Ignore, Reject
from kombu.exceptions import OperationalError
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.delivery import NoLease, TurnDelivery
from clasper_worker.errors import TurnCancelledError
from clasper_worker.tasks import base, cancelled
from clasper_worker.tasks.base import ClasperTask, typed_errors

RAN: list[str] = []


class Refusing:
    """What a run's notes say of a job that is cancelled, from its Nth question on."""

    def __init__(self, after: int) -> None:
        self._left = after

    async def confirm(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TurnCancelledError("cancelled")


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> Iterator[ClasperTask]:
    monkeypatch.setenv("CELERY_BROKER_URL", "amqp://127.0.0.1:1")
    get_settings.cache_clear()
    RAN.clear()
    app = Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.broker_write_url = "memory://"  # Celery takes the other from the environment

    @app.task(base=ClasperTask, bind=True, name="test.work", shared=False)
    async def work(self: ClasperTask, **kwargs: Any) -> str:
        async with typed_errors("turn"):
            RAN.append(self.request.id)
            fence = kwargs.get("fence")
            if fence is not None:
                await fence.confirm()
            return "done"

    yield work
    app.close()
    get_settings.cache_clear()


async def run(task: ClasperTask, notes: Any, monkeypatch: pytest.MonkeyPatch, **kwargs: Any) -> Any:
    async def fence_of(*_: Any) -> Any:
        return notes

    monkeypatch.setattr(base, "fence_of", fence_of)
    task.request_stack.push(Context(id="job", called_directly=False))
    try:
        return await task.coroutine(**kwargs)
    finally:
        task.request_stack.pop()


async def test_it_does_nothing_and_ends_revoked(
    task: ClasperTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(Ignore):
        await run(task, Refusing(0), monkeypatch)
    assert RAN == []
    assert task.app.AsyncResult("job").state == "REVOKED"


async def test_one_that_is_cancelled_while_it_runs_ends_revoked_where_it_confirms(
    task: ClasperTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    fence = Refusing(1)
    with pytest.raises(Ignore):
        await run(task, fence, monkeypatch, fence=fence)
    assert RAN == ["job"]
    assert task.app.AsyncResult("job").state == "REVOKED"


async def test_any_other_runs(task: ClasperTask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await run(task, NoLease(), monkeypatch) == "done"


async def test_a_delivery_of_our_scheduler_has_its_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        async def get(self) -> None:
            return None

    monkeypatch.setattr(cancelled, "CANCELLED", Nothing())
    fence = await cancelled.fence_of(TurnDelivery(), "clasper.send", "job", {})
    assert isinstance(fence, NoLease)


class Ends:
    """Celery's result backend and events, and the queue of webhooks, in one."""

    thread_safe = True

    def __init__(self, down: str = "") -> None:
        self.heard: list[str] = []
        self.down = down
        self.backend = self.events = self
        self.tasks = {"clasper.webhook": self}

    def apply_async(self, *, kwargs: Any, **_: Any) -> None:
        self.heard.append(f"publish {json.loads(kwargs['body'])['code']}")
        if self.down == "broker":
            raise OperationalError("down")

    def default_dispatcher(self) -> Any:
        if self.down == "events":
            raise OperationalError("down")
        return nullcontext(self)

    def send(self, event: str, **_: Any) -> None:
        self.heard.append(event)

    def mark_as_revoked(self, job_id: str, reason: str, **_: Any) -> None:
        self.heard.append(f"store {reason} of {job_id}")
        if self.down == "results":
            raise RedisConnectionError("down")


CANCELLED_TURN = {"user_id": "u", "message": "Hi", "webhook": {"url": "https://example.com/"}}


@pytest.mark.parametrize("down", ["", "broker", "events"])
async def test_a_turn_that_was_cancelled_is_reported_then_stored_as_revoked_then_announced(
    down: str,
) -> None:
    ends = Ends(down)
    await cancelled.end_revoked(ends, "clasper.send", Context(id="job"), CANCELLED_TURN)
    announced = [] if down == "events" else ["task-revoked"]
    assert ends.heard == ["publish cancelled", "store revoked of job", *announced]


async def test_a_cancelled_job_that_is_no_turn_has_no_webhook() -> None:
    ends = Ends()
    await cancelled.end_revoked(ends, "clasper.compact", Context(id="job"), CANCELLED_TURN)
    assert ends.heard == ["store revoked of job", "task-revoked"]


async def test_a_cancelled_job_whose_end_cannot_be_stored_comes_again() -> None:
    ends = Ends("results")
    with pytest.raises(Reject) as caught:
        await cancelled.end_revoked(ends, "clasper.send", Context(id="job"), CANCELLED_TURN)
    assert caught.value.requeue
