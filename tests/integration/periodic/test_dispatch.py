"""Notifications answered by real processes: Beat, workers, backend, model."""

import json
import os
import secrets
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx2
import pytest

from clasper_worker.mission_control.transport import ATTEMPTS
from tests.integration.periodic.test_by_the_clock import clasper

pytestmark = pytest.mark.integration

INTERNAL = {"X-Internal-Token": "internal"}
SOON = {"DISPATCH_MIN_INTERVAL_SEC": "0.5", "DISPATCH_MAX_INTERVAL_SEC": "1"}


def notify(processes: Any, user: str, **fields: Any) -> str:
    body = {"user_id": user, "content": f"Please note {user}", **fields}
    url = f"{processes.backend_url}/api/mission-control/notifications"
    answer = processes.http.post(url, json=body, headers=INTERNAL).raise_for_status()
    return str(answer.json()["id"])


def undelivered(processes: Any) -> int:
    url = f"{processes.backend_url}/api/mission-control/dispatch/undelivered"
    limits = {"limit_users": 1000, "limit_notifications": 1000}
    answer = processes.http.get(url, params=limits, headers=INTERNAL)
    return len(answer.raise_for_status().json()["deliveries"])


def replies(processes: Any, user: str) -> list[str]:
    return [
        message["content"]
        for task in processes.read(user, "tasks")
        for message in processes.read(user, "messages", task_id=task["id"])
    ]


def test_what_is_notified_while_everything_runs_is_answered_once_and_acknowledged(
    processes: Any, wait_until: Any
) -> None:
    users = [secrets.token_hex(6) for _ in range(4)]
    with ExitStack() as running:
        for beat in ("beat-1", "beat-2"):
            command = ("celery", "-A", "beat_schedule", "beat", "-l", "INFO")
            running.enter_context(processes.running(beat, *command, **SOON))
        running.enter_context(processes.worker("w1", "-c", "20", **SOON))
        for round_ in range(3):
            for user in users:
                notify(processes, user, task_title=f"Round {round_}")
        gone = notify(processes, "u-gone", session_key="no session key")
        wait_until(lambda: undelivered(processes) == 1, "all but the malformed one acknowledged")
        for user in users:
            tasks = processes.read(user, "tasks")
            assert [task["title"] for task in tasks] == ["Round 0", "Round 1", "Round 2"]
            assert len(replies(processes, user)) == 3
        letters = clasper(processes, "dead-letters", "list", "--json")
        assert letters.returncode == 0, letters.stderr
        assert "session_key" in json.dumps(json.loads(letters.stdout))
        assert gone not in processes.logs["beat-1"].read_text()


def test_a_worker_that_is_killed_loses_and_doubles_nothing(processes: Any, wait_until: Any) -> None:
    users = [secrets.token_hex(6) for _ in range(30)]
    quick = {**SOON, "CLASPER_VISIBILITY_TIMEOUT_SEC": "2"}
    with ExitStack() as running:
        running.enter_context(processes.running("beat", "clasper_worker", "beat", **SOON))
        running.enter_context(processes.worker("survivor", "-c", "3", **quick))
        victim = ("celery", "-A", "clasper_worker", "worker", "-n", "victim@test", "-c", "10")
        victim_process = running.enter_context(processes.running("victim", *victim, **quick))
        wait_until(lambda: processes.app.control.ping(["victim@test"], timeout=0.5), "victim")
        before = undelivered(processes)
        for user in users:
            notify(processes, user)
        wait_until(lambda: undelivered(processes) < before + len(users), "the first answers")
        os.kill(victim_process.pid, signal.SIGKILL)
        wait_until(lambda: undelivered(processes) <= before, "all acknowledged")
        assert [len(replies(processes, user)) for user in users] == [1] * len(users)


class Flaky(BaseHTTPRequestHandler):
    """Passes requests on to the backend, and fails the first tries of each acknowledgement."""

    backend = ""
    http: httpx2.Client
    asked: ClassVar[Counter[str]] = Counter()
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.asked[path] += 1
        # One more than a turn's own acknowledgement tries, so that the job after it is needed.
        if path.endswith("/deliver") and self.asked[path] <= ATTEMPTS + 1:
            status, content = 500, b"{}"
        else:
            skipped = {"host", "content-length", "connection"}
            headers = {n: v for n, v in self.headers.items() if n.lower() not in skipped}
            url = self.backend + self.path
            answer = self.http.request(self.command, url, content=body, headers=headers)
            status, content = answer.status_code, answer.content
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def flaky(processes: Any) -> Iterator[str]:
    handler = type("Handler", (Flaky,), {"backend": processes.backend_url, "http": processes.http})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_acknowledgements_that_fail_are_repeated_without_a_second_turn(
    processes: Any, wait_until: Any, flaky: str
) -> None:
    users = [secrets.token_hex(6) for _ in range(10)]
    before = undelivered(processes)
    with ExitStack() as running:
        through = {"BACKEND_URL": flaky}
        running.enter_context(processes.worker("w3", "-c", "10", **through))
        for user in users:
            notify(processes, user)
        running.enter_context(processes.running("beat", "clasper_worker", "beat", **SOON))
        wait_until(lambda: undelivered(processes) <= before, "all acknowledged")
        assert [len(replies(processes, user)) for user in users] == [1] * len(users)
    later = processes.http.get(f"{processes.model_url}/requests?limit=1000").json()["requests"]
    for user in users:
        assert sum(user in json.dumps(one["body"]) for one in later) == 1


def test_one_poll_from_the_command_line(processes: Any, wait_until: Any) -> None:
    user, before = secrets.token_hex(6), undelivered(processes)
    notify(processes, user)
    polled = clasper(processes, "dispatch", "--once")
    assert polled.returncode == 0, polled.stderr
    assert "dispatch_ok" in polled.stdout
    with processes.worker("w2"):
        wait_until(lambda: len(replies(processes, user)) == 1, "answered")
        wait_until(lambda: undelivered(processes) <= before, "and acknowledged")


def test_a_callers_metadata_acknowledges_nothing_and_the_messages_header_does(
    processes: Any, wait_until: Any
) -> None:
    user = secrets.token_hex(6)
    named = notify(processes, user, task_title="T")
    fields = {"user_id": user, "message": "Please note this.", "task_title": "T"}
    marks = {"dispatch": {"notification_id": named}, "malformed_notification": {"id": named}}

    def listed() -> bool:
        url = f"{processes.backend_url}/api/mission-control/dispatch/undelivered"
        found = processes.http.get(url, params={"limit_users": 1000}, headers=INTERNAL).json()
        return named in {one["notification_id"] for one in found["deliveries"]}

    with processes.worker("trusting", "-Q", "trusting"):
        how = {"queue": "trusting", "kwargs": {**fields, "metadata": marks}}
        assert processes.app.send_task("clasper.send", **how).get(timeout=60)["status"] == "ok"
        assert listed()
        header = {"clasper_notification": {"notification_id": named}}
        processes.app.send_task(
            "clasper.send", kwargs=fields, queue="trusting", headers=header
        ).get(timeout=60)
        wait_until(lambda: not listed(), "it is acknowledged")


def test_a_message_whose_header_names_anothers_session_is_refused_with_the_reason(
    processes: Any,
) -> None:
    user = secrets.token_hex(6)
    fields = {"user_id": user, "message": "Hello", "task_title": "T"}
    header = {"clasper_route": {"user_id": "victim", "metadata": {"busy": "interrupt"}}}
    with processes.worker("routed", "-Q", "routed"):
        turn = processes.app.send_task(
            "clasper.send", kwargs=fields, queue="routed", headers=header
        )
        with pytest.raises(Exception, match="clasper_route"):
            turn.get(timeout=60)
    assert replies(processes, user) == []
