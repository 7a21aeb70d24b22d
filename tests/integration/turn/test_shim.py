"""The shim as a real process before a real worker."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def shim(processes: Any) -> Iterator[httpx2.Client]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    key = {"AGENT_DAEMON_API_KEY": "key"}
    with (
        processes.worker("shim-worker"),
        processes.running("shim", "clasper_worker", "serve", "--port", str(port), **key),
    ):
        until(lambda: answers(f"{url}/health"), "shim", processes.logs["shim"])
        with httpx2.Client(
            base_url=url, headers={"X-Agent-Daemon-Key": "key"}, timeout=60
        ) as client:
            yield client


def test_waiting_gives_the_result_that_lies_in_the_backend(processes: Any, shim: Any) -> None:
    word = secrets.token_hex(8)
    request = {"user_id": word, "message": f"Note {word}", "task_title": "T"}
    answer = shim.post("/api/agents/send", params={"wait": "60"}, json=request)
    assert answer.status_code == 200
    result = answer.json()
    assert word in result["response"]
    (message,) = processes.read(word, "messages", task_id=result["task_id"])
    assert message["content"] == result["response"]


def test_a_turn_belongs_to_the_trace_of_its_request(shim: Any) -> None:
    trace_id = secrets.token_hex(16)
    answer = shim.post(
        "/api/agents/send",
        params={"wait": "60"},
        json={"user_id": "u1", "message": "Hi", "task_title": "T"},
        headers={"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"},
    )
    assert answer.json()["trace_id"] == answer.headers["x-trace-id"] == trace_id


def test_a_job_can_be_followed_by_status_and_by_events(shim: Any) -> None:
    request = {"user_id": "u1", "message": "Hi", "task_title": "T"}
    queued = shim.post("/api/agents/send", json=request).json()
    events = events_of(shim, queued["events_url"])
    assert [event["type"] for _, event in events if event["type"] != "queued"] == [
        "start",
        "step",
        "done",
    ]
    status = shim.get(queued["status_url"]).json()
    assert status["status"] == "succeeded"
    assert events[-1][1] == {**status["result"], "type": "done"}
    for place, (event_id, _) in enumerate(events[:-1]):
        again = events_of(shim, queued["events_url"], event_id)
        assert again == events[place + 1 :]
    nothing = shim.get(queued["events_url"], headers={"Last-Event-ID": events[-1][0]})
    assert (nothing.status_code, nothing.content) == (204, b"")


def events_of(shim: Any, url: str, last_event_id: str | None = None) -> list[Any]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    answer = shim.get(url, headers=headers)
    assert answer.headers["content-type"].startswith("text/event-stream")
    blocks = [block.splitlines() for block in answer.text.split("\r\n\r\n") if "data:" in block]
    return [(lines[0][4:], json.loads(lines[2][6:])) for lines in blocks]


def test_a_turn_for_a_task_that_is_not_there_is_a_404_with_its_error(shim: Any) -> None:
    request = {"user_id": "u1", "message": "Hi", "task_id": "nobodys"}
    answer = shim.post("/api/agents/send", params={"wait": "60"}, json=request)
    assert (answer.status_code, answer.json()["code"]) == (404, "backend_not_found")
    job = shim.get(f"/api/jobs/{answer.json()['job_id']}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "backend_not_found")


def test_many_waiters_each_get_their_own_result(shim: Any) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def one(number: int) -> bool:
        request = {"user_id": f"w{number}", "message": f"Number {number}!", "task_title": "T"}
        answer = shim.post("/api/agents/send", params={"wait": "60"}, json=request)
        return f"Number {number}!" in answer.json()["response"]

    with ThreadPoolExecutor(20) as threads:
        assert all(threads.map(one, range(40)))
