"""A Redis that vanishes without a word: its connections stay open, and nothing answers on them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import pytest
import redis
from kombu import Connection, Consumer, Queue
from kombu.message import Message

from clasper_worker.celery import TRANSPORT, celery_configuration
from clasper_worker.config.settings import Settings
from tests.chaos.route import Route
from tests.integration.engine.queue.conftest import Site
from tests.unit.engine.queue.turns import Broker

pytestmark = pytest.mark.integration

DEADLINE = 30.0


@pytest.fixture
def route(site: Site) -> Iterator[Route]:
    url = urlsplit(site.settings.celery_broker_url)
    made = Route(url.hostname or "127.0.0.1", url.port or 6379)
    yield made
    made.close()


@pytest.fixture
def connection(route: Route, settings_of: Callable[..., Settings]) -> Iterator[Connection]:
    url = f"redis://127.0.0.1:{route.port}/0"
    options = celery_configuration(settings_of(celery_broker_url=url))["broker_transport_options"]
    # As configured, but sooner.
    quick = {name: options[name] / 20 for name in ("socket_timeout", "health_check_interval")}
    made = Connection(url, transport=TRANSPORT, transport_options=options | quick)
    yield made
    made.close()


def drain(connection: Connection, messages: list[Message], number: int) -> None:
    """Consume as Celery does, which connects anew where a connection is lost."""
    deadline = time.monotonic() + DEADLINE
    while len(messages) < number:
        assert time.monotonic() < deadline
        try:
            connection.drain_events(timeout=0.2)
        except connection.connection_errors:
            continue


def test_an_idle_worker_connects_anew(site: Site, route: Route, connection: Connection) -> None:
    broker = Broker(site.redis)
    broker.send("a")
    messages: list[Message] = []
    queue = Queue("clasper", no_declare=True)
    with Consumer(connection.default_channel, [queue], on_message=messages.append):
        drain(connection, messages, 1)
        messages[0].ack()
        with pytest.raises(TimeoutError):
            connection.drain_events(timeout=0.5)  # nothing to do
        route.lose()
        broker.send("b")
        drain(connection, messages, 2)


def test_an_exchange_ends_and_what_it_was_to_settle_is_kept(
    site: Site, route: Route, connection: Connection
) -> None:
    Broker(site.redis).send("a")
    messages: list[Message] = []
    queue = Queue("clasper", no_declare=True)
    with Consumer(connection.default_channel, [queue], on_message=messages.append):
        drain(connection, messages, 1)
        route.lose()
        with pytest.raises(redis.exceptions.TimeoutError):
            messages[0].ack()
        Broker(site.redis).send("b")
        drain(connection, messages, 2)
        assert [message.headers["id"] for message in messages] == ["a", "b"]
        (running,) = site.redis.smembers("clasper:running")
        assert site.redis.hget(f"clasper:message:{running.decode()}", "j") == b"b"
