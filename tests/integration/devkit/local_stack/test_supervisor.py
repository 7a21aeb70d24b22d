"""Starting, keeping and stopping processes, with small real ones."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clasper_worker.devkit.local_stack.process import Layer, ProcessSpec
from clasper_worker.devkit.local_stack.supervisor import Supervisor
from clasper_worker.engine.processes.guard import Guard
from clasper_worker.errors import StackError
from tests.waiting import eventually

pytestmark = pytest.mark.integration

# Appends "NAME started", and on SIGTERM "NAME stopped" after so many seconds, to a shared file.
TOY = """
import os, signal, sys, time
name, journal, linger = sys.argv[1], sys.argv[2], float(sys.argv[3])
def note(text):
    with open(journal, "a") as file:
        file.write(f"{name} {text}\\n")
def stop(*_):
    time.sleep(linger)
    note("stopped")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)  # a shell's background job ignores it
note(f"started {os.getpid()}")
while True:
    signal.pause()
"""


@dataclass
class RecordedLog:
    children: list[tuple[str, str]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def child(self, name: str, line: str) -> None:
        self.children.append((name, line))

    def say(self, text: str) -> None:
        self.said.append(text)


@dataclass
class FileHolds:
    """Ready once the journal says so."""

    path: Path
    text: str

    async def __call__(self, pid: int) -> bool:
        return self.path.exists() and f"{self.text} {pid}" in self.path.read_text("utf-8")


def python(name: str, code: str, layer: Layer = Layer.FRONT, *arguments: str) -> ProcessSpec:
    return ProcessSpec(name, (sys.executable, "-I", "-S", "-c", code, *arguments), layer)


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def guard() -> Iterator[Guard]:
    with Guard() as guard:
        yield guard


@pytest.fixture
def log() -> RecordedLog:
    return RecordedLog()


def toy(
    journal: Path,
    name: str,
    layer: Layer,
    linger: float = 0,
    stop: tuple[tuple[signal.Signals, float], ...] = ((signal.SIGTERM, 20.0),),
) -> ProcessSpec:
    return ProcessSpec(
        name,
        (sys.executable, "-I", "-S", "-c", TOY, name, str(journal), str(linger)),
        layer,
        ready=FileHolds(journal, f"{name} started"),
        stop=stop,
    )


def noted(journal: Path) -> list[str]:
    return journal.read_text("utf-8").splitlines() if journal.exists() else []


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@asynccontextmanager
async def running(supervisor: Supervisor) -> AsyncIterator[asyncio.Task[None]]:
    """Run the supervisor; inside the block it is ready, after it everything has stopped."""
    ready = asyncio.Event()
    task = asyncio.create_task(supervisor.run(ready.set))
    waiter = asyncio.create_task(ready.wait())
    await asyncio.wait((task, waiter), return_when=asyncio.FIRST_COMPLETED, timeout=30)
    if task.done():
        await task
    try:
        yield task
    finally:
        if not task.done():
            supervisor.ask_to_stop()
        await asyncio.wait_for(task, 30)


async def test_processes_stop_from_the_front_to_the_broker_each_waiting_for_the_one_before(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    specs = [
        toy(journal, "redis", Layer.BROKER),
        toy(journal, "backend", Layer.BACKEND),
        toy(journal, "model", Layer.MODEL),
        toy(journal, "worker", Layer.WORKER, linger=0.3),
        toy(journal, "shim", Layer.FRONT, linger=0.3),
        toy(journal, "flower", Layer.FRONT),
    ]

    async with running(Supervisor(specs, log, guard)):
        pass

    stopped = [line.split()[0] for line in noted(journal) if line.endswith("stopped")]
    assert stopped == ["flower", "shim", "worker", "model", "backend", "redis"]


async def test_nothing_starts_before_the_broker_is_ready(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    specs = [toy(journal, "shim", Layer.FRONT), toy(journal, "redis", Layer.BROKER)]

    async with running(Supervisor(specs, log, guard)):
        started = [line.split()[0] for line in noted(journal)]

    assert started == ["redis", "shim"]


async def test_output_comes_line_by_line_and_whole(log: RecordedLog, guard: Guard) -> None:
    code = (
        "import sys, time\n"
        "for number in range(200):\n"
        "    sys.stdout.write(f'out {number} '); sys.stdout.flush()\n"
        "    sys.stdout.write('end\\n'); sys.stdout.flush()\n"
        "sys.stderr.buffer.write(b'caf\\xc3\\xa9 \\xff\\r\\n'); sys.stderr.flush()\n"
        "sys.stdout.write('x' * 200_000 + '\\nno newline'); sys.stdout.flush()\n"
        "time.sleep(60)\n"
    )

    async with running(Supervisor([python("a", code), python("b", code)], log, guard)):
        await eventually(lambda: sum(len(line) >= 60_000 for _, line in log.children) >= 4)

    for name in ("a", "b"):
        lines = [line for child, line in log.children if child == name]
        assert lines[:200] == [f"out {number} end" for number in range(200)]
        assert lines[200] == "café �"
        assert "".join(lines[201:]) == "x" * 200_000 + "no newline"


async def test_a_process_that_ends_is_started_again(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    async with running(Supervisor([toy(journal, "worker", Layer.WORKER)], log, guard)):
        first = int(noted(journal)[0].split()[-1])
        os.kill(first, signal.SIGKILL)
        await eventually(lambda: len(noted(journal)) == 2)
        assert int(noted(journal)[1].split()[-1]) != first

    assert "worker was killed (SIGKILL); starting it again (1 of 3)" in log.said


async def test_a_process_that_keeps_ending_stops_the_stack_which_says_why(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    dying = python("beat", "import time; time.sleep(0.1); raise SystemExit(7)")
    specs = [toy(journal, "redis", Layer.BROKER), dying]

    with pytest.raises(StackError, match=r"beat ended by itself \(exit code 7\).*3 restarts"):
        await asyncio.wait_for(Supervisor(specs, log, guard).run(lambda: None), 60)

    assert [line for line in log.said if "starting it again" in line] == [
        f"beat ended by itself (exit code 7); starting it again ({number} of 3)"
        for number in (1, 2, 3)
    ]
    assert noted(journal)[-1] == "redis stopped"


async def test_a_process_that_ends_before_it_is_ready_stops_the_stack_at_once(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    failing = ProcessSpec(
        "shim",
        (sys.executable, "-I", "-S", "-c", "print('no such port'); raise SystemExit(2)"),
        Layer.FRONT,
        ready=FileHolds(journal, "never"),
    )

    with pytest.raises(StackError, match=r"shim ended by itself \(exit code 2\) before"):
        await Supervisor([toy(journal, "redis", Layer.BROKER), failing], log, guard).run(
            pytest.fail
        )

    assert ("shim", "no such port") in log.children
    assert noted(journal)[-1] == "redis stopped"


async def test_a_process_that_is_not_ready_in_time_stops_the_stack(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    never = ProcessSpec(
        "model",
        (sys.executable, "-I", "-S", "-c", TOY, "model", str(journal), "0"),
        Layer.MODEL,
        ready=FileHolds(journal, "never ready"),
    )

    with pytest.raises(StackError, match=r"model was not ready within 0\.5 seconds"):
        await Supervisor([never], log, guard, start_seconds=0.5).run(pytest.fail)


async def test_a_program_that_is_not_there_is_a_clear_error(log: RecordedLog, guard: Guard) -> None:
    missing = ProcessSpec("redis", ("/nowhere/redis-server",), Layer.BROKER)

    with pytest.raises(StackError, match="redis cannot be started: No such file"):
        await Supervisor([missing], log, guard).run(pytest.fail)


async def test_a_stop_while_it_is_still_starting_ends_what_runs(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    never = ProcessSpec(
        "shim",
        (sys.executable, "-I", "-S", "-c", TOY, "shim", str(journal), "0"),
        Layer.FRONT,
        ready=FileHolds(journal, "never ready"),
    )
    supervisor = Supervisor([toy(journal, "redis", Layer.BROKER), never], log, guard)
    task = asyncio.create_task(supervisor.run(pytest.fail))

    await eventually(lambda: len(noted(journal)) == 2)
    supervisor.ask_to_stop()
    await asyncio.wait_for(task, 30)

    assert [line for line in noted(journal) if "stopped" in line] == [
        "shim stopped",
        "redis stopped",
    ]


async def test_asked_twice_it_kills_what_does_not_want_to_stop(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    specs = [
        toy(journal, "redis", Layer.BROKER),
        toy(journal, "worker", Layer.WORKER, linger=600, stop=((signal.SIGTERM, 600.0),)),
    ]
    supervisor = Supervisor(specs, log, guard)

    async with running(supervisor):
        pids = [int(line.split()[-1]) for line in noted(journal)]
        supervisor.ask_to_stop()
        supervisor.ask_to_stop()

    assert not any(exists(pid) for pid in pids)
    assert "worker stopped" not in noted(journal)


async def test_a_process_that_ignores_its_stop_signals_is_killed_in_the_end(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    stubborn = toy(journal, "worker", Layer.WORKER, linger=600, stop=((signal.SIGTERM, 0.2),))

    async with running(Supervisor([stubborn], log, guard)):
        pid = int(noted(journal)[0].split()[-1])

    assert not exists(pid)
    assert "worker does not stop; killing it" in log.said


async def test_the_next_stop_signal_is_sent_when_the_first_is_not_obeyed(
    journal: Path, log: RecordedLog, guard: Guard
) -> None:
    signals = ((signal.SIGTERM, 0.2), (signal.SIGQUIT, 20.0))
    stubborn = toy(journal, "worker", Layer.WORKER, linger=600, stop=signals)

    async with running(Supervisor([stubborn], log, guard)):
        pass

    assert "worker does not stop; killing it" not in log.said


async def test_what_a_process_leaves_behind_is_killed_with_it(
    log: RecordedLog, guard: Guard
) -> None:
    code = (
        "import os, signal, sys, time\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    time.sleep(600)\n"
        "print(child, flush=True)\n"
        "time.sleep(600)\n"
    )

    async with running(Supervisor([python("worker", code)], log, guard)):
        await eventually(lambda: log.children)
        grandchild = int(log.children[0][1])
        assert exists(grandchild)

    await eventually(lambda: not exists(grandchild))


async def test_each_process_is_out_of_reach_of_the_terminals_ctrl_c(
    log: RecordedLog, guard: Guard
) -> None:
    code = "import os, time; print(os.getsid(0) == os.getpid(), flush=True); time.sleep(600)"

    async with running(Supervisor([python("worker", code)], log, guard)):
        await eventually(lambda: log.children)

    assert log.children == [("worker", "True")]


def test_when_the_stack_itself_is_killed_none_of_its_processes_is_left(tmp_path: Path) -> None:
    # A process that ignores every polite signal, and has a child of its own.
    code = (
        "import os, signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "os.fork()\n"
        "print('pid', os.getpid(), flush=True)\n"
        "time.sleep(600)\n"
    )
    stack = (
        "import asyncio, sys\n"
        "from clasper_worker.engine.processes.guard import Guard\n"
        "from clasper_worker.devkit.local_stack.process import Layer, ProcessSpec\n"
        "from clasper_worker.devkit.local_stack.supervisor import Supervisor\n"
        "class Log:\n"
        "    def child(self, name, line): print(line, flush=True)\n"
        "    def say(self, text): pass\n"
        f"command = (sys.executable, '-I', '-S', '-c', {code!r})\n"
        "spec = ProcessSpec('worker', command, Layer.WORKER)\n"
        "with Guard() as guard:\n"
        "    asyncio.run(Supervisor([spec], Log(), guard).run(lambda: None))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", stack], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        pids = [int(process.stdout.readline().split()[1]) for _ in range(2)]
        assert all(exists(pid) for pid in pids)
        os.killpg(process.pid, signal.SIGKILL)

    deadline = time.monotonic() + 20
    while any(exists(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(exists(pid) for pid in pids)
