"""Where a task goes that follows one of ours."""

from typing import Any

import pytest

from clasper_worker.celery import app
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.follow_ups import no_such_task, route_follow_up


@pytest.fixture(autouse=True)
def _fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("CLASPER_CALLBACK_QUEUE", "theirs")
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def test_a_task_of_the_customers_without_a_queue_goes_to_the_callback_queue() -> None:
    found = route_follow_up("shop.note", (), {}, {})
    assert found is not None
    assert (found["queue"].name, found["queue"].routing_key) == ("theirs", "theirs")


@pytest.mark.parametrize("options", [{"queue": "q"}, {"exchange": "x"}, {"routing_key": "k"}])
def test_a_place_that_it_names_is_kept(options: dict[str, str]) -> None:
    assert route_follow_up("shop.note", (), {}, options) is None


def test_our_own_tasks_and_those_of_our_app_stay_on_our_default_queue() -> None:
    assert route_follow_up("clasper.send", (), {}, {}) is None
    assert route_follow_up("celery.backend_cleanup", (), {}, {}) is None
    assert route_follow_up("added.to_our_app", (), {}, {}, task=object()) is None


def test_celery_sends_it_there_and_does_not_consume_it_itself() -> None:
    before = set(app.amqp.queues)
    routed = app.amqp.router.route({}, "shop.note", (), {})
    assert routed["queue"].name == "theirs"
    assert app.amqp.router.route({}, "clasper.send", (), {})["queue"].name == "clasper"
    assert set(app.amqp.queues) == before


def test_a_task_that_nobody_has_is_named_with_the_fix() -> None:
    text = no_such_task("shop.note")
    assert "no such task: shop.note" in text
    assert "CLASPER_CALLBACK_QUEUE" in text
    assert len(no_such_task("x" * 100_000)) < 1000
