"""The stack on a RabbitMQ of its own, with a Redis for results and our state."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from celery import Celery

from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.cancel import Canceller
from tests.chaos.workers import Nursery
from tests.integration.clients import close_client
from tests.integration.turn import conftest as turns
from tests.integration.turn.conftest import Processes, run_processes
from tests.rabbitmq import RabbitMQ, find_rabbitmq, start_rabbitmq

slow_model = turns.slow_model


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQ]:
    if find_rabbitmq() is None:
        pytest.skip("no RabbitMQ here: install rabbitmq-server")
    with start_rabbitmq(tmp_path_factory.mktemp("rabbitmq")) as server:
        yield server


@pytest.fixture(scope="module")
def processes(
    tmp_path_factory: pytest.TempPathFactory, nursery: Nursery, rabbitmq: RabbitMQ
) -> Iterator[Processes]:
    for found in run_processes(tmp_path_factory.mktemp("processes"), nursery):
        redis_url = found.environment["CELERY_BROKER_URL"]
        environment = {
            **found.environment,
            "CELERY_BROKER_URL": rabbitmq.url,
            "CELERY_RESULT_BACKEND": redis_url,
            "CLASPER_REDIS_URL": redis_url,
        }
        app = Celery("my_backend", broker=rabbitmq.url, backend=redis_url, set_as_current=False)
        # Otherwise what is written into a connection that the server has just closed is gone.
        app.conf.broker_transport_options = {"confirm_publish": True}
        yield replace(found, app=app, environment=environment)
        close_client(app)


@pytest.fixture
def canceller(processes: Processes) -> Iterator[Canceller]:
    names = ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CLASPER_REDIS_URL")
    given: dict[str, Any] = {name.lower(): processes.environment[name] for name in names}
    made = Canceller.from_settings(processes.app, Settings(_env_file=None, **given))
    yield made
    made.close()
