"""``/health`` and ``/ready``: what is missing, within bounded time."""

import asyncio
import time
from typing import Any

import pytest
from celery import Celery

from clasper_worker.config.names import QUEUES
from clasper_worker.shim import health, readiness
from clasper_worker.shim.readiness import PROBE_SECONDS, Fleet, ask_workers
from tests.unit.shim.shims import caller, shim_app


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answers(*_: Any) -> bool:
        return True

    for module in (health, readiness):
        monkeypatch.setattr(module, "backend_answers", answers)


async def test_a_deep_look_answers_503_where_something_is_missing_and_200_else(
    backend: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with caller(shim_app()) as client:
        answer = await client.get("/health", params={"deep": "true"})
        assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        assert answer.json()["backend"]["status"] == "ok"
    monkeypatch.undo()
    async with caller(shim_app()) as client:  # no BACKEND_URL
        answer = await client.get("/health", params={"deep": "true"})
        assert (answer.status_code, answer.json()["status"]) == (503, "degraded")
        assert answer.json()["checks"] == {"redis": True, "backend": False}


async def test_a_shallow_look_tells_the_configuration_to_whoever_has_the_key_alone() -> None:
    async with caller(shim_app(agent_daemon_api_key="k", clasper_port=1)) as client:
        bare = (await client.get("/health")).json()
        told = (await client.get("/health", headers={"X-Daemon-Key": "k"})).json()
    assert set(bare) == {"status", "version"}
    assert told["backend"] == {"url": None, "status": "unchecked"}
    assert told["workspace"]["status"] == "missing"
    assert told["config"]["port"] == 1


async def test_no_probe_waits_for_what_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: Any) -> bool:
        await asyncio.Event().wait()
        return True

    monkeypatch.setattr("clasper_worker.shim.results.JobRegister.reachable", hang)
    monkeypatch.setattr(health, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "PROBE_SECONDS", 0.05)
    monkeypatch.setattr(readiness, "ask_workers", lambda *_: time.sleep(0.3))
    async with caller(shim_app()) as client:
        deep = await client.get("/health", params={"deep": "true"})
        ready = await client.get("/ready")
    assert (deep.status_code, deep.json()["checks"]["redis"]) == (503, False)
    assert ready.json()["details"]["missing"] == ["broker", "redis", "backend"]
    assert PROBE_SECONDS < 2


@pytest.mark.parametrize(
    ("found", "missing"),
    [
        (Fleet(broker=True, unserved=set()), []),
        (
            Fleet(broker=True, unserved={"clasper.webhooks", "clasper"}),
            ["a worker for clasper, clasper.webhooks"],
        ),
        (Fleet(), ["broker"]),
    ],
)
async def test_ready_names_what_is_missing(
    backend: None,
    monkeypatch: pytest.MonkeyPatch,
    found: Fleet,
    missing: list[str],
) -> None:
    monkeypatch.setattr(readiness, "Fleet", lambda: found)
    monkeypatch.setattr(readiness, "ask_workers", lambda *_: None)
    async with caller(shim_app(agent_daemon_api_key="k")) as client:
        answer = await client.get("/ready")  # needs no key
    if missing:
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert answer.json()["details"]["missing"] == missing
    else:
        assert (answer.status_code, answer.json()["status"]) == (200, "ready")


async def test_probes_at_one_time_ask_the_workers_once(
    backend: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def ask(_: Any, __: Any, fleet: Fleet) -> None:
        asked.append(fleet)
        fleet.broker, fleet.unserved = True, set()

    monkeypatch.setattr(readiness, "ask_workers", ask)
    async with caller(shim_app()) as client:
        answers = await asyncio.gather(*(client.get("/ready") for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len(asked) == 1


def test_queues_are_served_once_some_worker_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []

    def broadcast(command: str, *, callback: Any, **_: Any) -> None:
        for n, names in enumerate((QUEUES[:2], QUEUES[2:3], QUEUES[3:], ("never",))):
            heard.append(n)
            callback({f"worker{n}": [{"name": name} for name in names]})

    app = Celery(broker="memory://", set_as_current=False)

    def ask() -> Fleet:
        fleet = Fleet()
        ask_workers(app, 1.0, fleet)
        return fleet

    monkeypatch.setattr(app.control, "broadcast", broadcast)
    assert ask() == Fleet(broker=True, unserved=set())
    assert heard == [0, 1, 2]  # and waits for no more

    def some(command: str, *, callback: Any, **_: Any) -> None:
        callback({"worker1": {"error": "unknown command"}})
        callback({"worker2": [{"name": QUEUES[0]}]})

    monkeypatch.setattr(app.control, "broadcast", some)
    assert ask() == Fleet(broker=True, unserved=set(QUEUES[1:]))

    def lost(*_: Any, **__: Any) -> None:
        raise OSError

    monkeypatch.setattr(app.control, "broadcast", lost)
    assert ask() == Fleet(broker=False)
