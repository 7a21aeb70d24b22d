"""A group of processes run as one, with small programs in the place of workers."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.waiting import until

WORKER = """
import os, pathlib, signal, sys, time
folder, name, behaviour = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def note(event):
    with (folder / name).open("a") as log:
        log.write(f"{event} {os.getpid()}\\n")
def warm(*_):
    note("term")
    if behaviour != "stubborn":
        sys.exit(3 if behaviour == "failing" else 0)
def quick(*_):
    note("quit")
    os._exit(0)
signal.signal(signal.SIGTERM, warm)
signal.signal(signal.SIGQUIT, quick)
note("start")
if behaviour in ("crashing", "refused"):
    sys.exit(7 if behaviour == "crashing" else 2)
while True:
    time.sleep(60)
"""
GROUP = """
import asyncio, json, sys
from clasper_worker.engine.processes.worker_group import WorkerGroup
sys.exit(asyncio.run(WorkerGroup(json.loads(sys.argv[1])).run()))
"""


class Group:
    def __init__(self, folder: Path, *behaviours: str) -> None:
        import json

        self.folder = folder
        commands = [
            [sys.executable, "-c", WORKER, str(folder), f"w{index}", behaviour]
            for index, behaviour in enumerate(behaviours)
        ]
        self.process = subprocess.Popen([sys.executable, "-c", GROUP, json.dumps(commands)])

    def events(self, name: str) -> list[str]:
        log = self.folder / name
        return [line.split()[0] for line in log.read_text().splitlines()] if log.exists() else []

    def pids(self, name: str) -> list[int]:
        return [
            int(line.split()[1])
            for line in (self.folder / name).read_text().splitlines()
            if line.startswith("start")
        ]

    def await_events(self, name: str, *events: str) -> None:
        until(lambda: self.events(name) == list(events))


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A zombie that nobody has reaped yet is gone for our purpose.
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.fixture
def group(tmp_path: Path) -> object:
    made: list[Group] = []

    def make(*behaviours: str) -> Group:
        made.append(Group(tmp_path, *behaviours))
        return made[-1]

    yield make
    for item in made:
        item.process.kill()
        item.process.wait()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_to_stop_is_a_warm_shutdown_of_each(
    group: Callable[..., Group], number: signal.Signals
) -> None:
    running = group("well", "well")
    for name in ("w0", "w1"):
        running.await_events(name, "start")
    running.process.send_signal(number)
    assert running.process.wait(30) == 0
    assert running.events("w0") == running.events("w1") == ["start", "term"]


def test_a_second_request_is_a_quick_shutdown(group: Callable[..., Group]) -> None:
    running = group("stubborn")
    running.await_events("w0", "start")
    running.process.send_signal(signal.SIGTERM)
    running.await_events("w0", "start", "term")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0
    assert running.events("w0") == ["start", "term", "quit"]


def test_sigquit_is_quick_at_once(group: Callable[..., Group]) -> None:
    running = group("stubborn")
    running.await_events("w0", "start")
    running.process.send_signal(signal.SIGQUIT)
    assert running.process.wait(30) == 0
    assert running.events("w0") == ["start", "quit"]


def test_a_process_that_is_killed_is_started_again_and_the_others_go_on(
    group: Callable[..., Group],
) -> None:
    running = group("well", "well")
    for name in ("w0", "w1"):
        running.await_events(name, "start")
    os.kill(running.pids("w0")[0], signal.SIGKILL)
    running.await_events("w0", "start", "start")
    assert running.events("w1") == ["start"]
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 0


def test_one_that_keeps_crashing_ends_the_group_with_exit_code_1(
    group: Callable[..., Group],
) -> None:
    running = group("crashing", "well")
    assert running.process.wait(60) == 1
    assert len(running.events("w0")) > 1
    assert running.events("w1") == ["start", "term"]


def test_a_process_that_does_not_stop_well_shows_in_the_exit_code(
    group: Callable[..., Group],
) -> None:
    running = group("failing", "well")
    for name in ("w0", "w1"):
        running.await_events(name, "start")
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(30) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_group_that_is_killed_leaves_nothing_behind(group: Callable[..., Group]) -> None:
    running = group("stubborn", "well")
    for name in ("w0", "w1"):
        running.await_events(name, "start")
    pids = running.pids("w0") + running.pids("w1")
    running.process.kill()
    until(lambda: not any(is_alive(pid) for pid in pids))


def test_one_that_is_refused_for_its_options_ends_the_group_at_once(
    group: Callable[..., Group],
) -> None:
    running = group("refused", "well")
    assert running.process.wait(60) == 2
    assert running.events("w0") == ["start"]
