"""Tasks declared with ``async def``, without a worker."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context
from celery.app.trace import build_tracer
from celery.exceptions import MaxRetriesExceededError, Retry

from clasper_worker.engine.pool.bridge import close_process_loop
from clasper_worker.engine.pool.context import (
    JobContext,
    current_job,
    current_request,
    request_source,
)
from clasper_worker.engine.pool.task import CoroutineTask
from clasper_worker.engine.pool.traced_call import SettledCall, settling


@pytest.fixture
def app() -> Iterator[Celery]:
    app = Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False)
    yield app
    app.close()
    close_process_loop()


@pytest.fixture
def eager(app: Celery) -> Celery:
    app.conf.task_always_eager = True
    return app


def declare(app: Celery, **options: Any) -> Any:
    """Celery's decorator; ``shared`` tasks would be those of every other test's app as well."""
    return app.task(base=CoroutineTask, shared=False, lazy=False, **options)


def test_an_eager_call_runs_the_coroutine(eager: Celery) -> None:
    @declare(eager)
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    assert double.delay(21).get() == 42


def test_a_direct_call_runs_the_coroutine(app: Celery) -> None:
    @declare(app)
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    assert double(21) == 42


async def test_another_coroutine_awaits_the_body(app: Celery) -> None:
    @declare(app)
    async def double(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    assert await double.run(21) == 42


def test_a_bound_body_has_its_request(eager: Celery) -> None:
    @declare(eager, bind=True, name="bound", soft_time_limit=3, time_limit=4)
    async def bound(self: CoroutineTask) -> tuple[str, JobContext | None]:
        await asyncio.sleep(0)
        return self.request.id, current_job()

    task_id, job = bound.apply_async(task_id="t1").get()
    assert task_id == "t1"
    assert job is not None
    assert (job.id, job.name, job.eager) == ("t1", "bound", True)
    assert (job.soft_limit, job.hard_limit) == (3, 4)
    assert current_request() is None


def test_the_request_of_another_task_is_not_the_running_ones(eager: Celery) -> None:
    @declare(eager, bind=True)
    async def other(self: CoroutineTask) -> None:
        await asyncio.sleep(0)

    @declare(eager)
    async def running() -> Any:
        await asyncio.sleep(0)
        return other.request.id

    assert running.apply_async(task_id="t1").get() is None


def test_a_body_that_is_not_a_coroutine_is_refused_where_it_is_declared(app: Celery) -> None:
    def plain() -> None:
        """Not async."""

    with pytest.raises(TypeError, match=r"'plain'.*must be `async def`"):
        declare(app)(plain)


def test_autoretry_retries_what_the_coroutine_raises(eager: Celery) -> None:
    attempts: list[int] = []

    @declare(eager, bind=True, autoretry_for=(ValueError,), max_retries=5)
    async def flaky(self: CoroutineTask) -> int:
        await asyncio.sleep(0)
        attempts.append(self.request.retries)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    assert flaky.delay().get() == 3
    assert attempts == [0, 1, 2]


def test_retry_in_the_body_retries(eager: Celery) -> None:
    @declare(eager, bind=True, max_retries=5)
    async def flaky(self: CoroutineTask) -> int:
        await asyncio.sleep(0)
        if self.request.retries < 2:
            raise self.retry(countdown=0)
        return int(self.request.retries)

    assert flaky.delay().get() == 2


def test_the_last_retry_raises_in_the_body(eager: Celery) -> None:
    @declare(eager, bind=True, max_retries=1)
    async def flaky(self: CoroutineTask) -> str:
        await asyncio.sleep(0)
        try:
            raise self.retry(countdown=0)
        except MaxRetriesExceededError:
            return "gave up"

    assert flaky.delay().get() == "gave up"


def _request(task_id: str = "t1") -> dict[str, Any]:
    return {"id": task_id, "retries": 0, "delivery_info": {}, "is_eager": False}


def test_the_tracer_is_given_the_outcome_at_hand(app: Celery) -> None:
    ran: list[str] = []

    @declare(app)
    async def body() -> str:
        await asyncio.sleep(0)
        ran.append("ran")
        return "own"

    body.__trace__ = build_tracer(body.name, body, app=app)
    settling.call = SettledCall(body, "at hand", None, began=100.0, ended=102.5)
    try:
        retval, info, runtime, text = body.__trace__("t1", (), {}, _request())
    finally:
        settling.call = None
    assert (retval, info, runtime, text) == ("at hand", None, 2.5, "'at hand'")
    assert app.backend.get_result("t1") == "at hand"
    assert ran == []


def test_the_tracer_stores_an_error_at_hand(app: Celery) -> None:
    @declare(app)
    async def body() -> None:
        await asyncio.sleep(0)

    settling.call = SettledCall(body, None, ValueError("wrong"), began=0.0, ended=1.0)
    try:
        body.__trace__("t2", (), {}, _request("t2"))
    finally:
        settling.call = None
    assert app.backend.get_state("t2") == "FAILURE"


def test_a_retry_at_hand_is_sent_by_the_tracer(app: Celery) -> None:
    @declare(app, bind=True, name="again")
    async def body(self: CoroutineTask) -> None:
        await asyncio.sleep(0)

    async def attempt() -> BaseException:
        request = app.tasks["again"].request_stack.top or _context("t3")
        request_source.set(lambda: request)
        try:
            body.retry(countdown=7)
        except Retry as exc:
            return exc
        raise AssertionError("did not raise")

    error = asyncio.run(attempt())
    with app.connection() as connection:
        queue = connection.SimpleQueue("celery")
        assert queue.qsize() == 0  # nothing was sent while the coroutine ran
        settling.call = SettledCall(body, None, error, began=0.0, ended=1.0)
        try:
            body.__trace__("t3", (), {}, {**_request("t3"), "task": "again"})
        finally:
            settling.call = None
        assert app.backend.get_state("t3") == "RETRY"
        message = queue.get(timeout=5)
        assert message.headers["id"] == "t3"
        assert message.headers["retries"] == 1
        assert message.headers["eta"] is not None
        message.ack()
        queue.close()


def _context(task_id: str) -> Any:
    return Context(id=task_id, task="again", called_directly=False, retries=0)


@pytest.mark.parametrize(
    ("option", "setting", "tracked"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
def test_started_is_tracked_as_declared_but_not_while_settling(
    app: Celery, option: bool | None, setting: bool, tracked: bool
) -> None:
    app.conf.task_track_started = setting
    options = {} if option is None else {"track_started": option}

    @declare(app, **options)
    async def body() -> None:
        await asyncio.sleep(0)

    assert body.track_started is tracked
    settling.call = SettledCall(body, None, None, 0.0, 0.0)
    try:
        assert body.track_started is False
    finally:
        settling.call = None


def test_tracking_can_be_set_by_annotation_and_later(app: Celery) -> None:
    app.conf.task_annotations = {"annotated": {"track_started": True}}

    @declare(app, name="annotated")
    async def body() -> None:
        await asyncio.sleep(0)

    assert body.track_started is True
    body.track_started = False
    assert body.track_started is False


def test_nothing_is_stored_or_traced_by_our_clock_under_other_pools(app: Celery) -> None:
    @declare(app)
    async def body() -> None:
        await asyncio.sleep(0)

    def tracer() -> None:
        """Celery's."""

    body.__trace__ = tracer
    assert body.__trace__ is tracer
