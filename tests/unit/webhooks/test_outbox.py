"""Onto the queue of webhooks, without blocking the loop and without losing one."""

import asyncio
import contextvars
import json
import threading
from collections.abc import Callable

import pytest
from celery.exceptions import SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from clasper_worker.engine.pool.soft_limit import Run
from clasper_worker.errors import StateUnavailableError
from clasper_worker.webhooks.outbox import Outbox
from clasper_worker.webhooks.payload import Delivery

URL = "https://example.com/"


async def test_a_delivery_is_published_in_another_thread(
    delivery_to: Callable[..., Delivery],
) -> None:
    published: list[tuple[Delivery, bool]] = []
    here = threading.get_ident()
    outbox = Outbox(lambda item: published.append((item, threading.get_ident() == here)))
    await outbox.put(delivery_to(URL))
    await outbox.close()
    assert published == [(delivery_to(URL), False)]


@pytest.mark.parametrize("error", [OperationalError("down"), ConnectionRefusedError("down")])
async def test_a_broker_that_does_not_take_it_is_an_error_of_ours(
    delivery_to: Callable[..., Delivery], error: Exception
) -> None:
    attempts: list[Delivery] = []

    def refuse(item: Delivery) -> None:
        attempts.append(item)
        raise error

    outbox = Outbox(refuse, pauses=(0, 0))
    with pytest.raises(StateUnavailableError, match="CELERY_BROKER_URL"):
        await outbox.put(delivery_to(URL))
    await outbox.close()
    assert len(attempts) == 3


async def test_a_broker_that_is_back_takes_it(delivery_to: Callable[..., Delivery]) -> None:
    published: list[Delivery] = []

    def at_second(item: Delivery) -> None:
        published.append(item)
        if len(published) == 1:
            raise OperationalError("down")

    outbox = Outbox(at_second, pauses=(0,))
    await outbox.put(delivery_to(URL))
    await outbox.close()
    assert len(published) == 2


async def test_a_soft_limit_meanwhile_does_not_lose_it(
    delivery_to: Callable[..., Delivery],
) -> None:
    started, go = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    published: list[Delivery] = []

    def slowly(item: Delivery) -> None:
        loop.call_soon_threadsafe(started.set)
        go.wait(10)
        published.append(item)

    outbox = Outbox(slowly)
    ended = asyncio.Event()
    run = Run(outbox.put(delivery_to(URL)), ended.set)
    run.start(loop, contextvars.copy_context())
    await started.wait()
    run.limit_softly(1.0)
    await asyncio.sleep(0)
    go.set()
    await ended.wait()
    assert not isinstance(run.error, SoftTimeLimitExceeded)
    assert run.error is None
    assert [json.loads(item.body) for item in published] == [{"event": "agent.completed"}]
    await outbox.close()
