"""The shim's ``/metrics``."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import fakeredis
import httpx2
import pytest
from prometheus_client import REGISTRY, CollectorRegistry
from starlette.responses import Response

from clasper_worker.devkit.local_stack.fake_redis import complete_scripting
from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.scheduler import Schedule
from clasper_worker.periodic.dispatch import LAST_POLL, LAST_POLL_SECONDS
from clasper_worker.shim.broker_figures import BrokerWatch
from clasper_worker.shim.metrics import Measured
from tests.unit.engine.queue.turns import Broker
from tests.unit.shim.shims import HERE, caller, shim_app
from tests.waiting import eventually

# Nobody listens there.
NOWHERE = "redis://127.0.0.1:1/0"
KEY = "a-key-of-the-shim"
REQUEST = {"user_id": "secret-user", "message": "Hello", "task_title": "T"}


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def line(text: str, start: str) -> float:
    (value,) = re.findall(rf"^{re.escape(start)} (\S+)$", text, re.MULTILINE)
    return float(value)


@pytest.fixture
async def client() -> AsyncIterator[httpx2.AsyncClient]:
    async with caller(shim_app(clasper_redis_url=NOWHERE)) as made:
        yield made


async def test_without_redis_the_shim_tells_its_own_figures_and_that_redis_is_away(
    client: httpx2.AsyncClient,
) -> None:
    await client.get("/health")
    answer = await client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert line(answer.text, "clasper_redis_up") == 0
    assert "clasper_queue_messages{" not in answer.text
    assert 'clasper_http_requests_total{method="GET",route="/health",status="200"}' in answer.text


@pytest.mark.parametrize("keyed", [False, True])
async def test_the_figures_are_open_unless_the_operator_closes_them(keyed: bool) -> None:
    given = {"agent_daemon_api_key": KEY, "clasper_metrics_keyed": keyed}
    async with caller(shim_app(clasper_redis_url=NOWHERE, **given)) as client:
        assert (await client.get("/metrics")).status_code == (401 if keyed else 200)
        answer = await client.get("/metrics", headers={"X-Agent-Daemon-Key": KEY})
        basic = await client.get("/metrics", auth=("prometheus", KEY))
    assert answer.status_code == basic.status_code == 200


async def test_requests_are_counted_by_the_route_not_by_what_it_was_filled_with(
    client: httpx2.AsyncClient,
) -> None:
    name, template = "clasper_http_requests_total", "/api/jobs/{job_id}"
    before = counted(name, route=template, method="GET", status="404")
    unmatched = counted(name, route="unmatched", method="GET", status="404")
    for number in range(3):
        await client.get(f"/api/jobs/counted-here-{number}")
    await client.get("/no/such/path-of-mine")
    assert counted(name, route=template, method="GET", status="404") == before + 3
    assert counted(name, route="unmatched", method="GET", status="404") == unmatched + 1
    text = (await client.get("/metrics")).text
    assert "counted-here" not in text
    assert "path-of-mine" not in text


async def test_a_method_of_the_callers_own_making_is_no_label(client: httpx2.AsyncClient) -> None:
    await client.request("BREW", "/health")
    text = (await client.get("/metrics")).text
    assert "BREW" not in text
    assert 'method="other"' in text


async def test_jobs_are_counted_by_task_and_name_nobody(client: httpx2.AsyncClient) -> None:
    before = counted("clasper_jobs_enqueued_total", task="clasper.send")
    assert (await client.post("/api/agents/send", json=REQUEST)).status_code == 202
    assert (await client.post("/api/agents/send", json={"user_id": "u"})).status_code == 400
    assert counted("clasper_jobs_enqueued_total", task="clasper.send") == before + 1
    assert "secret-user" not in (await client.get("/metrics")).text


async def test_a_request_that_waits_for_its_turn_is_counted_until_it_is_answered(
    client: httpx2.AsyncClient,
) -> None:
    waiting = lambda: counted("clasper_http_waiting_requests")  # noqa: E731
    before = waiting()  # type: ignore[no-untyped-call]
    asked = asyncio.create_task(client.post("/api/agents/send?wait=600", json=REQUEST))
    await eventually(lambda: waiting() == before + 1, "it is counted")  # type: ignore[no-untyped-call]
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    assert waiting() == before  # type: ignore[no-untyped-call]


async def answering(app: Any, path: str = "/") -> None:
    transport = httpx2.ASGITransport(Measured(app), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url=HERE) as client:
        await client.get(path)


async def test_a_fault_is_counted_as_what_the_server_makes_of_it() -> None:
    async def broken(*_: Any) -> None:
        raise RuntimeError("a fault")

    name = "clasper_http_requests_total"
    before = counted(name, route="unmatched", method="GET", status="500")
    await answering(broken)
    assert counted(name, route="unmatched", method="GET", status="500") == before + 1


async def test_event_streams_are_counted_while_they_last() -> None:
    seen: list[float] = []
    before = counted("clasper_http_event_streams")

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        seen.append(counted("clasper_http_event_streams") - before)
        await send({"type": "http.response.body", "body": b""})

    await answering(stream)
    await answering(Response("none"))
    assert seen == [1]
    assert counted("clasper_http_event_streams") == before


# What Redis tells


class Counting:
    """A client that counts its round trips."""

    def __init__(self, client: fakeredis.FakeStrictRedis) -> None:
        self._client = client
        self.pipelines = 0

    def pipeline(self, **options: Any) -> Any:
        self.pipelines += 1
        return self._client.pipeline(**options)

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"another call: {name}")


@pytest.fixture
def redis() -> Iterator[fakeredis.FakeStrictRedis]:
    server = fakeredis.FakeServer(server_type="redis")
    complete_scripting(server)
    with fakeredis.FakeStrictRedis(server=server) as client:
        yield client


async def test_the_queues_are_told_with_one_round_trip_for_several_scrapes(
    redis: fakeredis.FakeStrictRedis,
) -> None:
    broker = Broker(redis)
    for job in "abc":
        broker.send(job)
    broker.take(1)
    redis.set(f"clasper:jobs:{LAST_POLL}", "30", px=(LAST_POLL_SECONDS - 100) * 1000)
    client = Counting(redis)
    watch = BrokerWatch(client, client)
    found = [await watch.read() for _ in range(5)]
    assert client.pipelines == 1
    CollectorRegistry().register(found[-1])
    samples = {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in found[-1].collect()
        for sample in family.samples
    }
    states = ("arrived", "ready", "behind", "running")
    assert [samples["clasper_queue_messages", ("clasper", state)] for state in states] == [
        0,
        0,
        2,
        1,
    ]
    assert samples["clasper_redis_up", ()] == 1
    assert samples["clasper_dead_letters", ()] == 0
    assert 69 <= samples["clasper_dispatcher_lag_seconds", ()] <= 75


async def test_a_poll_that_is_not_due_yet_is_not_late(redis: fakeredis.FakeStrictRedis) -> None:
    redis.set(f"clasper:jobs:{LAST_POLL}", "30", px=(LAST_POLL_SECONDS - 5) * 1000)
    assert (await BrokerWatch(None, redis).read()).dispatcher_lag == 0


async def test_a_dispatcher_that_never_polled_has_no_lag(redis: fakeredis.FakeStrictRedis) -> None:
    found = await BrokerWatch(redis, redis).read()
    assert (found.is_up, found.dispatcher_lag) == (True, None)


async def test_another_broker_is_not_asked(redis: fakeredis.FakeStrictRedis) -> None:
    found = await BrokerWatch(None, redis).read()
    assert (found.is_up, found.status) == (True, None)


async def test_a_redis_that_takes_connections_and_says_nothing_holds_no_scrape() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}/0"
        async with caller(shim_app(clasper_redis_url=url)) as client:
            async with asyncio.timeout(10):
                answer = await client.get("/metrics")
    assert (answer.status_code, line(answer.text, "clasper_redis_up")) == (200, 0)


async def test_no_user_is_a_label(redis: fakeredis.FakeStrictRedis) -> None:
    broker = Broker(redis)
    for number in range(20):
        broker.send(f"{number}", user=f"user-{number}")
    queues = [("clasper", ["clasper"])]
    Schedule(redis, ScheduleRules(tenant_concurrency=1), queues).exchange(free=5)
    found = await BrokerWatch(redis, redis).read()
    labels = {v for f in found.collect() for s in f.samples for v in s.labels.values()}
    assert not {label for label in labels if label.startswith("user")}
