"""What our tasks have in common."""

import uuid
from collections.abc import Iterator

import pytest
from celery import Celery
from kombu.message import Message

from clasper_worker.tasks.base import ClasperTask

PRIVATE = {"user_id": "u1", "message": "hunter2", "webhook": {"secret": "hunter2"}}


@pytest.fixture
def task() -> Iterator[ClasperTask]:
    """A task of ours on a broker and a queue of its own."""
    app = Celery("test", broker="memory://", set_as_current=False)

    @app.task(base=ClasperTask, bind=True, name="clasper.test", shared=False)
    async def body(self: ClasperTask, *_: object, **__: object) -> None: ...

    app.conf.task_default_queue = f"q-{uuid.uuid4()}"
    yield body
    app.close()


def queued(task: ClasperTask) -> list[Message]:
    messages: list[Message] = []
    with task.app.connection_for_read() as connection:
        queue = task.app.amqp.queues[task.app.conf.task_default_queue](connection.default_channel)
        while (message := queue.get(no_ack=True)) is not None:
            messages.append(message)
    return messages


def test_a_message_of_ours_shows_its_arguments_redacted(task: ClasperTask) -> None:
    task.apply_async(kwargs=PRIVATE)
    task.delay("hunter2")
    task.signature((), PRIVATE).apply_async()
    first, second, third = queued(task)
    for message in (first, second, third):
        assert "hunter2" not in message.headers["kwargsrepr"] + message.headers["argsrepr"]
    assert "'user_id': 'u1'" in first.headers["kwargsrepr"]
    assert "hunter2" in str(first.body)


def test_a_retry_shows_them_redacted_too(task: ClasperTask) -> None:
    task.push_request(
        id="1", kwargs=PRIVATE, args=(), retries=2, called_directly=False, delivery_info={}
    )
    try:
        retry = task.retry(throw=False, countdown=30)
    finally:
        task.pop_request()
    (message,) = queued(task)
    assert "hunter2" not in f"{message.headers} {retry!r}"
    assert message.headers["retries"] == 3
    assert message.headers["id"] == "1"
