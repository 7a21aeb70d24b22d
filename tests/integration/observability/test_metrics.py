"""What a worker tells Prometheus of the turns that it ran."""

from __future__ import annotations

import os
import re
import signal
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.integration.turn.conftest import (  # noqa: F401 - fixtures
    answers,
    free_port,
    processes,
    slow_model,
)
from tests.waiting import until

pytestmark = pytest.mark.integration


def figure(text: str, name: str, **labels: str) -> float:
    """One sample's value; 0.0 where it was never counted."""
    for line in text.splitlines():
        found = re.fullmatch(rf"{name}\{{(.*)\}} (\S+)", line)
        if found and labels.items() <= dict(re.findall(r'(\w+)="([^"]*)"', found[1])).items():
            return float(found[2])
    return 0.0


def test_a_worker_serves_what_its_turns_came_to(processes: Any) -> None:  # noqa: F811 - the fixture
    port = free_port()

    def scraped() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text: str = answer.read().decode()
            return text

    with processes.worker("metrics", CLASPER_METRICS_PORT=str(port)):
        turns = [
            processes.app.send_task(
                "clasper.send",
                kwargs={"user_id": f"u{n}", "message": "Say hello", "task_title": "Metrics"},
                queue="clasper",
            )
            for n in range(6)
        ]
        for turn in turns:
            turn.get(timeout=60)
        until(
            lambda: figure(scraped(), "clasper_turns_total", outcome="ok") == 6,
            "all turns are counted",
        )
        text = scraped()
    assert figure(text, "clasper_turn_seconds_count", part="model") == 6
    assert figure(text, "clasper_turn_seconds_count", part="queue") == 6
    assert figure(text, "clasper_tokens_total", direction="output") > 0
    assert "u1" not in re.findall(r'="([^"]*)"', text)


def test_the_shim_serves_what_waits_and_what_it_did(processes: Any) -> None:  # noqa: F811 - the fixture
    port = free_port()
    url = f"http://127.0.0.1:{port}"

    def scraped() -> str:
        text: str = processes.http.get(f"{url}/metrics").raise_for_status().text
        return text

    command = ("clasper_worker", "serve", "--port", str(port))
    with processes.running("shim-metrics", *command):
        until(lambda: answers(f"{url}/health"), "the shim answers", processes.logs["shim-metrics"])
        for user in ("m1", "m1", "m2"):
            request = {"user_id": user, "message": "Say hello", "task_title": "Metrics"}
            processes.http.post(f"{url}/api/agents/send", json=request).raise_for_status()
        waiting = {"queue": "clasper", "state": "arrived"}
        until(
            lambda: figure(scraped(), "clasper_queue_messages", **waiting) == 3,
            "what no worker took is told",
        )
        with processes.worker("shim-metrics-worker"):
            until(
                lambda: figure(scraped(), "clasper_queue_messages", **waiting) == 0,
                "what was taken is told no more",
            )
            until(
                lambda: re.search(r"^clasper_worker_processes [1-9]", scraped(), re.MULTILINE),
                "the worker is told",
            )
        text = scraped()
    assert "clasper_redis_up 1.0" in text
    assert figure(text, "clasper_jobs_enqueued_total", task="clasper.send") == 3
    route = {"route": "/api/agents/send", "method": "POST"}
    assert figure(text, "clasper_http_requests_total", **route, status="202") == 3
    assert figure(text, "clasper_http_request_seconds_count", **route) == 3
    assert not {"m1", "m2"} & set(re.findall(r'="([^"]*)"', text))


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_group_of_processes_adds_up_what_was_lost_and_given_up(
    processes: Any,  # noqa: F811 - the fixture
    slow_model: dict[str, str],  # noqa: F811 - the fixture
) -> None:
    """One of them is killed in the middle of its turns; a message comes that nobody can read."""
    port = free_port()

    def count(name: str, **labels: str) -> float:
        text = processes.http.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
        return figure(text, name, **labels)

    environment = {
        **slow_model,
        "CLASPER_METRICS_PORT": str(port),
        "CLASPER_VISIBILITY_TIMEOUT_SEC": "2",
    }
    command = ("clasper_worker", "worker", "--processes", "2", "--no-pin", "-c", "4", "-n", "sum")
    with (
        redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"]) as broker,
        processes.running("group", *command, **environment) as group,
    ):
        until(
            lambda: answers(f"http://127.0.0.1:{port}/metrics"),
            "the port is served",
            processes.logs["group"],
        )
        turns = [
            processes.app.send_task(
                "clasper.send",
                kwargs={"user_id": f"lost{n}", "message": "Hello", "task_title": "Lost"},
                queue="clasper",
            )
            for n in range(8)
        ]
        until(lambda: broker.scard("clasper:running") == 8, "all turns run, four in each process")
        broker.lpush("clasper", b"junk")
        os.kill(children(group.pid)[-1], signal.SIGKILL)  # the first is their guard
        lost = {"cause": "lease_lapsed"}
        until(
            lambda: count("clasper_deliveries_lost_total", **lost) == 4,
            "the leases of the killed one's turns have lapsed, each counted once",
        )
        until(
            lambda: count("clasper_redeliveries_total", queue="clasper") >= 4,
            "its turns came again",
        )
        until(
            lambda: count("clasper_dead_letters_put_total", code="unreadable") == 1,
            "the dead letter is counted once",
        )
        for turn in turns:
            processes.app.control.revoke(turn.id, terminate=True)
        until(lambda: broker.scard("clasper:running") == 0, "the turns are stopped")
