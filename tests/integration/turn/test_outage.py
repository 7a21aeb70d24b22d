"""A hundred turns on two workers while the model or the backend is down or limits its rate."""

import secrets
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.integration.turn.conftest import free_port
from tests.waiting import until

pytestmark = pytest.mark.integration
TURNS = 100
RETRY_AFTER = 3.0


class Front:
    """Stands before a server and passes requests on, unless it has a bad time."""

    def __init__(self, target: str) -> None:
        self.mood: Literal["well", "down", "limits"] = "well"
        self.calls: list[float] = []
        self._target = target
        self._client = httpx2.AsyncClient(timeout=60)
        self.app = Starlette(
            routes=[Route("/{path:path}", self.answer, methods=["GET", "POST"])],
            lifespan=self._closing,
        )

    @asynccontextmanager
    async def _closing(self, app: Starlette) -> AsyncIterator[None]:
        async with self._client:
            yield

    async def answer(self, request: Request) -> Response:
        self.calls.append(time.monotonic())
        if self.mood == "down":
            return Response(status_code=503)
        if self.mood == "limits":
            return Response(status_code=429, headers={"Retry-After": f"{RETRY_AFTER:g}"})
        passed = ("authorization", "content-type", "x-agent-token")
        answer = await self._client.request(
            request.method,
            f"{self._target}{request.url.path}",
            params=request.query_params,
            headers={name: request.headers[name] for name in passed if name in request.headers},
            content=await request.body(),
        )
        return Response(answer.content, answer.status_code, media_type="application/json")


@contextmanager
def front_of(target: str) -> Iterator[tuple[Front, str]]:
    front, port = Front(target), free_port()
    server = uvicorn.Server(uvicorn.Config(front.app, port=port, log_level="warning", backlog=1000))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        until(lambda: server.started, "the front serves")
        yield front, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)


@contextmanager
def two_workers(processes: Any, queue: str, **environment: str) -> Iterator[None]:
    name = f"{queue}-{secrets.token_hex(3)}"
    with (
        processes.worker(f"{name}-1", "-Q", queue, "-c", "100", **environment),
        processes.worker(f"{name}-2", "-Q", queue, "-c", "100", **environment),
    ):
        yield


def send(processes: Any, queue: str, user: str) -> Any:
    request = {"user_id": user, "message": "Hi", "task_title": "T"}
    return processes.app.send_task("clasper.send", kwargs=request, queue=queue)


def logged(processes: Any, queue: str, event: str) -> Callable[[], bool]:
    def look() -> bool:
        logs = [log for name, log in processes.logs.items() if name.startswith(queue)]
        return any(event in log.read_text(errors="replace") for log in logs)

    return look


@pytest.mark.parametrize("which", ["model", pytest.param("backend", marks=pytest.mark.minutes)])
def test_turns_wait_out_an_outage_and_only_probes_are_sent(processes: Any, which: str) -> None:
    queue = f"down-{which}"
    target = processes.model_url if which == "model" else processes.backend_url
    with front_of(target) as (front, url):
        pointed = {"OPENAI_BASE_URL": f"{url}/v1"} if which == "model" else {"BACKEND_URL": url}
        with two_workers(processes, queue, **pointed):
            front.mood = "down"
            turns = [send(processes, queue, secrets.token_hex(8))]
            until(logged(processes, queue, "gate.opened"), "the circuit is open")
            before, began = len(front.calls), time.monotonic()
            turns += [send(processes, queue, secrets.token_hex(8)) for _ in range(TURNS - 1)]
            until(lambda: len(front.calls) >= before + 2, "two probes were made")
            during, took = len(front.calls) - before, time.monotonic() - began
            front.mood = "well"
            results = [turn.get(timeout=120) for turn in turns]
    assert [result["status"] for result in results] == ["ok"] * TURNS
    assert before <= 10
    # Probes come a second apart at the least.
    assert during <= took + 2


@pytest.mark.parametrize("which", [pytest.param("model", marks=pytest.mark.minutes), "backend"])
def test_a_wait_that_one_worker_was_asked_for_is_honoured_by_both(
    processes: Any, which: str
) -> None:
    queue = f"limits-{which}"
    target = processes.model_url if which == "model" else processes.backend_url
    with front_of(target) as (front, url):
        pointed = {"OPENAI_BASE_URL": f"{url}/v1"} if which == "model" else {"BACKEND_URL": url}
        with two_workers(processes, queue, **pointed):
            front.mood = "limits"
            turns = [send(processes, queue, secrets.token_hex(8))]
            until(logged(processes, queue, "gate.paused"), "the rate limit is known")
            front.mood = "well"
            turns += [send(processes, queue, secrets.token_hex(8)) for _ in range(TURNS - 1)]
            results = [turn.get(timeout=120) for turn in turns]
    assert [result["status"] for result in results] == ["ok"] * TURNS
    limited, *later = front.calls
    assert min(later) - limited >= RETRY_AFTER - 0.1
