"""Turns handed to the shim over HTTP, and what is heard of them."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from clasper_worker.config.names import DISPATCH_QUEUE
from clasper_worker.errors import ConfigurationError, StateUnavailableError
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.periodic.dispatch import Dispatcher, DispatchRules
from clasper_worker.periodic.enqueue import Job, ShimQueue
from clasper_worker.periodic.notes import OwnNotes
from clasper_worker.periodic.notification import left_alone_for

Answering = Callable[[httpx2.Request], httpx2.Response]


def job(user: str, number: int = 1) -> Job:
    mark = {"notification_id": f"{user}-{number}"}
    request = {"user_id": user, "message": f"{number}"}
    return Job("clasper.send", request, DISPATCH_QUEUE, mark=mark)


class Shim:
    """Answers as the shim does, and remembers the order."""

    def __init__(self) -> None:
        self.taken: list[str] = []
        self.answer: Answering = self.take
        self.jobs: dict[str, dict[str, Any]] = {}
        transport = httpx2.MockTransport(self._handle)
        self.queue = ShimQueue(httpx2.AsyncClient(base_url="http://shim", transport=transport))

    def take(self, request: httpx2.Request) -> httpx2.Response:
        named = json.loads(request.headers["X-Clasper-Notification"])["notification_id"]
        self.taken.append(named)
        return httpx2.Response(202, json={"status": "queued", "job_id": named})

    async def _handle(self, request: httpx2.Request) -> httpx2.Response:
        await asyncio.sleep(0)
        if request.method == "GET":
            known = self.jobs.get(request.url.path.rpartition("/")[2])
            return httpx2.Response(200 if known else 404, json=known or {})
        return self.answer(request)


@pytest.fixture
def shim() -> Shim:
    return Shim()


async def test_turns_of_one_session_arrive_in_order(shim: Shim) -> None:
    await shim.queue.put([job(user, n) for n in range(5) for user in ("u1", "u2", "u3")])
    assert len(shim.taken) == 15
    for user in ("u1", "u2", "u3"):
        own = [named for named in shim.taken if named.startswith(user)]
        assert own == [f"{user}-{n}" for n in range(5)]


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_what_the_shim_refuses_for_its_content_holds_up_nothing(
    shim: Shim, status: int
) -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        bad = "u1-1" in request.headers["X-Clasper-Notification"]
        return httpx2.Response(status, json={"error": "no"}) if bad else shim.take(request)

    shim.answer = answer
    await shim.queue.put([job("u1", 1), job("u1", 2), job("u2", 3)])
    assert sorted(shim.taken) == ["u1-2", "u2-3"]


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, ConfigurationError), (429, StateUnavailableError), (503, StateUnavailableError)],
)
async def test_what_is_no_fault_of_the_request_is_an_error(
    shim: Shim, status: int, error: type[Exception]
) -> None:
    shim.answer = lambda _: httpx2.Response(status, json={"error": "x", "code": "x"})
    with pytest.raises(error):
        await shim.queue.put([job("u1")])


async def test_a_refused_internal_token_names_its_own_variable(shim: Shim) -> None:
    body = {"error": "needs X-Internal-Token", "code": "internal_token_refused"}
    shim.answer = lambda _: httpx2.Response(403, json=body)
    with pytest.raises(ConfigurationError, match="X-Internal-Token") as err:
        await shim.queue.put([job("u1")])
    assert err.value.details["variable"] == "INTERNAL_API_TOKEN"


async def test_a_shim_that_is_not_there_names_the_variable(shim: Shim) -> None:
    def refuse(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("no")

    shim.answer = refuse
    with pytest.raises(StateUnavailableError, match="AGENT_DAEMON_URL"):
        await shim.queue.put([job("u1")])


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        ({"code": "model_unavailable", "details": {}}, left_alone_for(is_transient=True)),
        ({"code": "model_rejected", "details": {}}, left_alone_for(is_transient=False)),
        ({"code": "turn_timeout", "details": {"posted": True}}, None),
    ],
)
async def test_the_notification_of_a_failed_turn_is_left_alone_for_a_while(
    shim: Shim, error: dict[str, Any], seconds: float | None
) -> None:
    written: list[tuple[str, float]] = []

    class Watched(OwnNotes):
        async def write(self, names: Any, text: str, seconds: float, **_: Any) -> None:
            written.append((text, seconds))

    await shim.queue.put([job("u1")])
    notes = Watched()
    shim.jobs = {"u1-1": {"status": "running"}}
    await shim.queue.look_after(notes)
    assert written == []
    shim.jobs = {"u1-1": {"status": "failed", "error": error}}
    for _ in range(2):  # told once
        await shim.queue.look_after(notes)
    assert written == ([] if seconds is None else [("failed", seconds)])


async def test_a_dispatcher_needs_the_backend_and_the_shim_and_no_redis(shim: Shim) -> None:
    listed = [
        {"notification_id": f"n{n}", "user_id": "u1", "content": "Hi", "session_key": "user:u1:w"}
        for n in range(3)
    ]

    def backend(request: httpx2.Request) -> httpx2.Response:
        is_poll = request.url.path.endswith("/undelivered")
        body = {"deliveries": listed} if is_poll else {"features": {"notifications_dispatch": True}}
        return httpx2.Response(200, json=body)

    client = httpx2.AsyncClient(base_url="http://backend", transport=httpx2.MockTransport(backend))
    internal = InternalBackend(BackendTransport(client, attempts=1), "internal")
    dispatcher = Dispatcher(internal, OwnNotes(), shim.queue, DispatchRules())
    assert (await dispatcher.poll("p")).enqueued == 3
    assert (await dispatcher.poll("p")).outcome == "too_soon"
    assert (await dispatcher.poll("p", at_once=True)).enqueued == 0
    assert shim.taken == ["n0", "n1", "n2"]
