"""What a coroutine knows about its Celery task."""

from __future__ import annotations

from celery.app.task import Context

from clasper_worker.engine.pool.context import JobContext, current_job, current_request, describe


def test_outside_a_task_there_is_none() -> None:
    assert current_request() is None
    assert current_job() is None


def test_a_request_is_described() -> None:
    request = Context(
        id="t1",
        task="clasper.send",
        retries=2,
        hostname="celery@host",
        delivery_info={"routing_key": "clasper", "redelivered": True},
        root_id="r1",
        parent_id="p1",
        timelimit=[600, 300],
        is_eager=False,
    )
    assert describe(request) == JobContext(
        id="t1",
        name="clasper.send",
        retries=2,
        redelivered=True,
        hostname="celery@host",
        queue="clasper",
        root_id="r1",
        parent_id="p1",
        soft_limit=300,
        hard_limit=600,
        eager=False,
    )


def test_an_empty_request_is_described() -> None:
    assert describe(Context()) == JobContext(id=None, name=None)
