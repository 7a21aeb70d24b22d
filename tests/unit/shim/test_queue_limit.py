"""Past the limit of what may wait, nothing is enqueued; below it, nothing is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from clasper_worker.engine.queue.queue_status import BrokerStatus, QueueStatus
from clasper_worker.shim.broker_figures import BrokerFigures, BrokerWatch
from tests.unit.shim.shims import caller, shim_app
from tests.waiting import eventually

REQUEST = {"user_id": "u1", "message": "Hello", "task_title": "T"}
MESSAGES = [{"role": "user", "content": "Hello"}]


def found(**queues: int) -> BrokerFigures:
    status = BrokerStatus(
        {name: QueueStatus(arrived=count, running=50) for name, count in queues.items()},
        capped=0,
        suspect=0,
        dead=0,
        workers=1,
    )
    return BrokerFigures(True, status)


def waiting(monkeypatch: pytest.MonkeyPatch, **queues: int) -> None:
    figures = found(**queues)

    async def read(_: BrokerWatch) -> BrokerFigures:
        return figures

    monkeypatch.setattr(BrokerWatch, "latest", lambda _: figures)
    monkeypatch.setattr(BrokerWatch, "read", read)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/agents/send", REQUEST),
        ("/api/agents/stream", REQUEST),
        ("/compact", {"messages": MESSAGES}),
        ("/llm-task", {"prompt": "Hello"}),
    ],
)
async def test_a_full_queue_takes_nothing_more_and_says_when_to_try_again(
    monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    waiting(monkeypatch, clasper=6, other=4)
    monkeypatch.setattr("clasper_worker.client.CheckedCelery.send_task", pytest.fail)
    async with caller(shim_app(clasper_queue_limit=10)) as client:
        answer = await client.post(path, json=body)
        assert (await client.get("/health")).status_code == 200
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_full")
    assert answer.headers["retry-after"] == "10"
    assert answer.json()["details"] == {"waiting": 10, "limit": 10}


async def test_what_runs_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting(monkeypatch, clasper=9)
    async with caller(shim_app(clasper_queue_limit=10)) as client:
        assert (await client.post("/api/agents/send", json=REQUEST)).status_code == 202


async def test_a_queue_that_was_full_when_it_was_last_looked_at_is_looked_at_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting(monkeypatch, clasper=9)
    monkeypatch.setattr(BrokerWatch, "latest", lambda _: found(clasper=10))
    async with caller(shim_app(clasper_queue_limit=10)) as client:
        assert (await client.post("/api/agents/send", json=REQUEST)).status_code == 202


async def test_a_full_queue_says_nothing_to_who_has_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    waiting(monkeypatch, clasper=10)
    async with caller(shim_app(clasper_queue_limit=10, agent_daemon_api_key="key")) as client:
        assert (await client.post("/api/agents/send", json=REQUEST)).status_code == 401


async def test_the_latest_figures_are_there_at_once_and_are_asked_for_in_the_background() -> None:
    class Redis:
        asked = 0

        def pipeline(self, **_: Any) -> Any:
            raise OSError("not the point")

        def close(self) -> None: ...

    redis = Redis()
    watch = BrokerWatch(redis, redis)

    def read() -> BrokerFigures:
        redis.asked += 1
        return BrokerFigures(is_up=True)

    watch._read = read  # type: ignore[method-assign]
    assert [watch.latest().is_up for _ in range(3)] == [False] * 3
    await eventually(lambda: watch.latest().is_up)
    assert redis.asked == 1
    await watch.close()
