"""Heartbeats and standups by real processes, and the commands that ask for one."""

import json
import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.forked import run

pytestmark = pytest.mark.integration


def clasper(processes: Any, *arguments: str, **extra: str) -> subprocess.CompletedProcess[str]:
    environment = {**processes.environment, **extra}
    return run(processes.nursery, ("clasper_worker", *arguments), environment, processes.folder)


@pytest.fixture(scope="module")
def worker(processes: Any) -> Iterator[str]:
    with processes.worker("clockwork") as node:
        yield node


def test_a_heartbeat_from_the_command_line(processes: Any, worker: str) -> None:
    user = secrets.token_hex(6)
    done = clasper(processes, "heartbeat", USER_ID=user, AGENT_ROLE="reader")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("heartbeat_ok\n")
    assert [task["title"] for task in processes.read(user, "tasks")] == ["Heartbeat"]
    assert not processes.read(user, "messages", task_id=processes.read(user, "tasks")[0]["id"])
    nobody = clasper(processes, "heartbeat")
    assert nobody.returncode == 1
    assert "USER_ID" in nobody.stderr


def test_a_standup_from_the_command_line_once_a_day(processes: Any) -> None:
    user = secrets.token_hex(6)
    named = {"CLASPER_AGENTS": f"{user}:reader", "STANDUP_TIMEZONE": "UTC"}
    dry = clasper(processes, "standup", "--dry-run", **named)
    assert dry.returncode == 0, dry.stderr
    assert processes.read(user, "documents") == []
    for _ in range(2):
        done = clasper(processes, "standup", **named)
        assert done.returncode == 0, done.stderr
        assert done.stdout.endswith("standup_ok\n")
        (document,) = processes.read(user, "documents")
        assert document["doc_type"] == "standup"
    nobody = clasper(processes, "standup")
    assert (nobody.returncode, nobody.stdout) == (0, "0 agents\nstandup_ok\n")
    assert "CLASPER_AGENTS" in nobody.stderr
    elsewhere = clasper(processes, "standup", "--user", user, "--timezone", "Mars/Olympus")
    assert elsewhere.returncode == 2
    assert "--timezone" in elsewhere.stderr


def test_beat_has_each_agents_heartbeat_run(processes: Any, wait_until: Any, worker: str) -> None:
    users = [secrets.token_hex(6) for _ in range(3)]
    extra = {
        "CLASPER_AGENTS": ",".join(f"{user}:reader" for user in users),
        "CLASPER_HEARTBEAT_INTERVAL_SEC": "5",
        "CLASPER_ACTIVE_HOURS": "00:00-24:00",
    }
    with (
        processes.worker("ticking", "-Q", "clasper.periodic", **extra),
        processes.running("beat", "clasper_worker", "beat", **extra),
    ):
        wait_until(lambda: all(processes.read(user, "tasks") for user in users), "all hearts beat")


@pytest.mark.minutes
def test_another_beat_takes_over_when_the_first_is_killed(processes: Any, wait_until: Any) -> None:
    # Of single ticks it tells at DEBUG alone.
    command = ("celery", "-A", "beat_schedule", "beat", "-l", "DEBUG")
    extra = {"DISPATCH_MIN_INTERVAL_SEC": "0.5"}

    def leads(name: str) -> bool:
        return "Sending due task" in processes.logs[name].read_text()

    with processes.running("leader", *command, **extra) as leader:
        wait_until(lambda: leads("leader"), "the first leads")
        with processes.running("heir", *command, **extra):
            os.kill(leader.pid, signal.SIGKILL)
            wait_until(lambda: leads("heir"), "the other takes over")


def test_a_heartbeat_gives_way_to_a_person(processes: Any, wait_until: Any) -> None:
    user = secrets.token_hex(6)
    app = processes.app
    heart = {"user_id": user, "agent_role": "reader", "any_time": True}
    # Nobody runs it yet: both are taken from the queues at one moment, the heartbeat first.
    beat = app.send_task("clasper.heartbeat", kwargs=heart, queue="q-way")
    request = {"user_id": user, "agent_role": "reader", "message": "Hi", "task_title": "T"}
    turn = app.send_task("clasper.send", kwargs=request, queue="q-way")
    with processes.worker("way", "-Q", "q-way", "-c", "1"):
        assert turn.get(timeout=60)["status"] == "ok"
        wait_until(lambda: beat.state == "REVOKED", "the heartbeat is revoked")
    assert json.loads(json.dumps(processes.read(user, "tasks")))[-1]["title"] == "T"
