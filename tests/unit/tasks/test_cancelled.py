"""A job that is cancelled, on a broker that cannot be asked for its message back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.exceptions import Ignore

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
