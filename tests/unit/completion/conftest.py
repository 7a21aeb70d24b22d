"""Who waits for a job's end, at the boundaries of this process: each notes when it hears of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from clasper_worker import process
from clasper_worker.engine.pool.loop_local import LoopLocal
from clasper_worker.errors import BackendUnavailableError, StateUnavailableError
from clasper_worker.llm.cost import Usage, turn_cost
from clasper_worker.periodic.acknowledge import Acknowledgements
from clasper_worker.periodic.enqueue import Job
from clasper_worker.periodic.notes import Slots
from clasper_worker.tasks.base import ClasperTask
from clasper_worker.turn.models import TurnResult
from clasper_worker.webhooks.outbox import Outbox
from clasper_worker.webhooks.payload import Delivery

HOOK = {"url": "https://example.com/", "secret": "s"}
MARK = {"notification_id": "n1"}


@dataclass
class Listeners:
    """The broker, the backend's dispatch endpoints and the notes, in one.

    Attributes:
        heard: what each was asked for, in order, also where it did not take it.
        down: which of them take nothing: ``broker``, ``backend``, ``notes``.
        deliveries: the webhooks that are enqueued.
    """

    heard: list[str] = field(default_factory=list)
    down: set[str] = field(default_factory=set)
    deliveries: list[Delivery] = field(default_factory=list)

    @property
    def payloads(self) -> list[dict[str, Any]]:
        return [json.loads(delivery.body) for delivery in self.deliveries]

    async def deliver(self, notification_id: str, user_id: str) -> None:
        self.heard.append(f"acknowledge {user_id}/{notification_id}")
        if "backend" in self.down:
            raise BackendUnavailableError("down")

    async def put(self, jobs: Sequence[Job]) -> None:
        self.heard += [f"enqueue {job.task}" for job in jobs]
        if "broker" in self.down:
            raise StateUnavailableError("down")

    async def write(self, names: Sequence[str], text: str, seconds: float) -> None:
        del names, seconds
        self.heard.append(f"note {text}")
        if "notes" in self.down:
            raise StateUnavailableError("down")

    def publish(self, delivery: Delivery) -> None:
        self.heard.append(f"enqueue {delivery.event}")
        if "broker" in self.down:
            raise ConnectionError("down")
        self.deliveries.append(delivery)


@pytest.fixture
def listeners(monkeypatch: pytest.MonkeyPatch) -> Listeners:
    """In place of what this process would connect to."""
    made = Listeners()
    acknowledgements = Acknowledgements(cast("Slots", made), made)
    stand_in(monkeypatch, process.JOBS, SimpleNamespace(acknowledgements=acknowledgements))
    stand_in(monkeypatch, process.RUNTIME, SimpleNamespace(internal=made))
    stand_in(monkeypatch, process.OUTBOX, Outbox(made.publish, pauses=()))
    return made


@pytest.fixture
def webhook_app(listeners: Listeners) -> Iterator[Celery]:
    """An app whose ``clasper.webhook`` the listeners stand behind, for ends in the worker."""
    app = Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False)

    class Webhook(ClasperTask):
        name = "clasper.webhook"

        async def run(self, **_: object) -> None: ...

        def apply_async(self, *_: Any, kwargs: Any = None, **options: Any) -> Any:
            assert options["task_id"] == kwargs["delivery_id"]
            listeners.heard.append(f"publish {kwargs['event']}")
            if "broker" in listeners.down:
                raise OperationalError("down")
            listeners.deliveries.append(Delivery.parse(kwargs))

    app.tasks.unregister("clasper.webhook")
    app.register_task(Webhook())
    yield app
    app.close()


def stand_in(monkeypatch: pytest.MonkeyPatch, shared: LoopLocal[Any], value: Any) -> None:
    """Have this process's tasks share ``value``, where they would open ``shared``."""

    async def make() -> Any:
        return value

    monkeypatch.setattr(shared, "_factory", make)
    monkeypatch.setattr(shared, "_close", None)


def result_of(text: str = "done", turn_id: str = "t") -> TurnResult:
    return TurnResult(
        turn_id=turn_id,
        task_id="task-1",
        trace_id="f" * 32,
        response=text,
        usage=Usage(),
        cost=turn_cost(()),
        tool_calls=0,
    )
