"""What the shim tells of the fleet, before real workers: readiness, usage, single model calls."""

import json
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx2
import pytest

from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = pytest.mark.integration

SCHEMA = {
    "type": "object",
    "properties": {"names": {"type": "array", "items": {"type": "string"}}},
    "required": ["names"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def shim(processes: Any) -> Iterator[httpx2.Client]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with processes.running("shim", "clasper_worker", "serve", "--port", str(port)):
        until(lambda: answers(f"{url}/health"), "shim", processes.logs["shim"])
        with httpx2.Client(base_url=url, timeout=60) as client:
            yield client


def usage(shim: httpx2.Client, user: str) -> dict[str, Any]:
    found: dict[str, Any] = shim.get("/usage", params={"user_id": user}).json()
    return found


def test_the_fleet_is_ready_once_workers_serve_every_queue(processes: Any, shim: Any) -> None:
    before = shim.get("/ready")
    assert (before.status_code, before.json()["code"]) == (503, "not_ready")
    (missing,) = before.json()["details"]["missing"]
    assert missing.startswith("a worker for clasper, ")
    with processes.worker("some", "-Q", "clasper,clasper.webhooks"):
        served: Any = until(
            lambda: "clasper," not in shim.get("/ready").text and shim.get("/ready")
        )
        assert served.json()["details"]["missing"] == [
            "a worker for clasper.dispatch, clasper.periodic"
        ]
        with processes.worker("rest", "-Q", "clasper.dispatch,clasper.periodic"):
            until(lambda: shim.get("/ready").status_code == 200, "all queues are served")
    assert shim.get("/health", params={"deep": "true"}).status_code == 200
    assert shim.get("/api/compatibility").json()["compatible"] is True


def test_usage_is_exact_over_workers_though_one_is_killed_and_turns_are_asked_twice(
    processes: Any, shim: Any
) -> None:
    def turn(number: int) -> dict[str, Any]:
        key = f"k{number // 2}"  # each asked for twice
        request = {
            "user_id": "metered",
            "message": f"Number {number // 2}",
            "task_title": "T",
            "agent_role": f"r{number // 2 % 5}",  # sessions of their own
            "idempotency_key": key,
        }
        answer = shim.post("/api/agents/send", params={"wait": "60"}, json=request)
        assert answer.status_code == 200, answer.text
        result: dict[str, Any] = answer.json()
        return result

    with processes.worker("stays"), processes.running(
        "killed", "celery", "-A", "clasper_worker", "worker", "-n", "killed@test"
    ) as killed:  # fmt: skip
        until(lambda: bool(processes.app.control.ping(["killed@test"], timeout=0.5)), "worker")
        with ThreadPoolExecutor(16) as threads:
            asked = [threads.submit(turn, number) for number in range(80)]
            asked[10].result()
            killed.send_signal(signal.SIGKILL)
            results = [one.result() for one in asked]
        turns = {result["turn_id"]: result["usage"] for result in results}
        assert len(turns) == 40
        told = until(
            lambda: (found := usage(shim, "metered"))["requestCount"] >= 40 and found, "counted"
        )
    assert told["requestCount"] == 40
    assert told["totalInputTokens"] == sum(one["prompt_tokens"] for one in turns.values())
    assert told["totalOutputTokens"] == sum(one["completion_tokens"] for one in turns.values())


def test_single_model_calls_and_compactions_give_their_output_and_are_counted(
    processes: Any, shim: Any
) -> None:
    with processes.worker("caller"):
        before = shim.get("/usage").json()
        answer = shim.post(
            "/llm-task",
            json={"prompt": "Who?", "input": ["Ada"], "schema": SCHEMA, "model": "best"},
        )
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["status"], told["validated"]) == ("ok", True)
        assert isinstance(told["output"]["names"], list)
        named = processes.app.send_task(
            "clasper.llm_task", kwargs={"prompt": "Say hello", "model": "house"}, queue="clasper"
        ).get(timeout=60)
        assert (named["status"], named["validated"]) == ("ok", False)
        messages = [{"role": "user", "content": text} for text in ("one", "two", "three")]
        compacted = shim.post("/compact", json={"messages": messages, "keep_recent": 1}).json()
        used = sum(one["usage"]["total_tokens"] for one in (told, named, compacted))
        after = until(
            lambda: (
                (found := shim.get("/usage").json())["requestCount"] == before["requestCount"] + 3
                and found
            ),
            "counted",
        )
        assert after["totalTokens"] - before["totalTokens"] == used
        refused = shim.post("/llm-task", json={"prompt": "x", "schema": {"type": "nothing"}})
        assert (refused.status_code, refused.json()["code"]) == (400, "invalid_request")
        assert json.loads(refused.text)["details"]["fields"][0]["field"] == "schema"
