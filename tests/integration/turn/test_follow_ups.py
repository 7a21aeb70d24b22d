"""Links, chains and chords of a customer's own app around our tasks, with a worker of its own."""

import gc
import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import chain, chord, group
from celery.canvas import Signature

from tests.integration.turn.conftest import Processes
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]


class Shop:
    """The customer's side: signatures of both apps' tasks, and what its worker noted."""

    def __init__(self, processes: Processes, client: redis.Redis) -> None:
        self.processes = processes
        self.where = secrets.token_hex(8)
        self._redis = client

    def turn(self, user: str = "", queue: str = "clasper", **fields: Any) -> Signature:
        kwargs = {"user_id": user or secrets.token_hex(8), "message": "Hello", "task_title": "T"}
        return self._signature("clasper.send", kwargs=kwargs | fields, queue=queue, immutable=True)

    def note(self, **options: Any) -> Signature:
        """A task of the customer's, without a queue unless one is given."""
        return self._signature("shop.note", kwargs={"where": self.where}, **options)

    def noted(self) -> list[Any]:
        """What its tasks were given."""
        return [json.loads(found) for found in self._redis.lrange(f"shop:{self.where}", 0, -1)]

    def first(self) -> Any:
        return until(self.noted, "the customer's task ran")[0]

    def _signature(self, name: str, *, immutable: bool = False, **rest: Any) -> Signature:
        kwargs, queue = rest.pop("kwargs"), rest.pop("queue", None)
        options = {"queue": queue} if queue else {}
        return self.processes.app.signature(
            name, kwargs=kwargs, options=options, immutable=immutable
        )


@contextmanager
def open_shop(processes: Processes) -> Iterator[Shop]:
    """A customer's worker on its default queue, and one of ours."""
    results = processes.app.conf.result_backend
    extra = {
        "SHOP_BROKER": processes.app.conf.broker_url,
        "SHOP_REDIS": results,
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = ("celery", "-A", "shop", "worker", "-P", "solo", "-n", "shop@test", "-l", "INFO")
    with (
        processes.running("shop", *command, **extra),
        processes.worker("ours"),
        redis.Redis.from_url(results) as client,
    ):
        ready = lambda: bool(processes.app.control.ping(["shop@test"], timeout=0.5))  # noqa: E731
        until(ready, "the customer's worker", processes.logs["shop"])
        yield Shop(processes, client)


@pytest.fixture(scope="module")
def opened(processes: Processes) -> Iterator[Shop]:
    with open_shop(processes) as shop:
        yield shop


@pytest.fixture
def shop(opened: Shop) -> Iterator[Shop]:
    opened.where = secrets.token_hex(8)
    yield opened
    gc.collect()  # results of which nobody heard unsubscribe, while there is a server to do so at


def test_the_next_of_a_chain_gets_the_turns_result(shop: Shop) -> None:
    end = chain(shop.turn(), shop.note()).apply_async()
    assert end.get(timeout=60) == shop.where
    (noted,) = shop.noted()
    assert noted["status"] == "ok"


def test_a_link_gets_the_turns_result(shop: Shop) -> None:
    turn = shop.turn().apply_async(link=shop.note())
    assert shop.first() == turn.get(timeout=60)


def test_a_link_of_errors_hears_of_a_turn_that_fails(shop: Shop) -> None:
    failing = shop.turn(message="").apply_async(link_error=shop.note())
    assert shop.first() == failing.id


def test_the_body_of_a_chord_gets_all_turns_results(shop: Shop) -> None:
    end = chord(group(shop.turn(), shop.turn()), shop.note()).apply_async()
    assert end.get(timeout=60) == shop.where
    ((one, two),) = shop.noted()
    assert (one["status"], two["status"]) == ("ok", "ok")


def test_a_turn_in_the_middle_of_a_chain_is_run_and_the_last_one_too(shop: Shop) -> None:
    user = secrets.token_hex(8)
    end = chain(shop.turn(), shop.turn(user), shop.note()).apply_async()
    assert end.get(timeout=60) == shop.where
    assert len(shop.processes.posted(user)) == 1


def test_a_queue_that_a_follow_up_names_is_kept(shop: Shop) -> None:
    shop.turn().apply_async(link=shop.note(queue="celery")).get(timeout=60)
    shop.first()


def test_a_task_that_no_worker_of_ours_has_is_refused_with_the_setting(shop: Shop) -> None:
    unknown = shop.note(queue="clasper").clone(args=("x",))
    end = unknown.apply_async(link_error=shop.note())
    with pytest.raises(Exception, match=r"no such task: shop\.note.*CLASPER_CALLBACK_QUEUE"):
        end.get(timeout=60)
    assert shop.first() == end.id


def test_a_chord_with_a_task_that_nobody_has_fails_and_hangs_nobody(shop: Shop) -> None:
    unknown = shop.note(queue="clasper").clone(args=("x",))
    end = chord(group(shop.turn(), unknown), shop.note()).apply_async()
    with pytest.raises(Exception, match=r"no such task|Dependency"):
        end.get(timeout=60)
    assert shop.noted() == []


def test_our_worker_leaves_the_customers_queue_alone_even_after_it_has_sent_there(
    shop: Shop,
) -> None:
    shop.turn().apply_async(link=shop.note())
    shop.first()
    queues = shop.processes.app.control.inspect(["ours@test"], timeout=5).active_queues()
    names = {queue["name"] for queue in queues["ours@test"]}
    assert names == {"clasper", "clasper.dispatch", "clasper.periodic", "clasper.webhooks"}
