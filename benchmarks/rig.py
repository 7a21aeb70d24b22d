"""What every measure stands on: Redis, the two servers, workers, and batches of turns."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from backlog import Backlog
from celery import Celery
from internal_endpoints import TOKEN
from processes import ROOT, BenchmarkError, Program, Server, Worker, cpu_seconds, wait_until_idle
from turns import Faults, Turn, check_posts, make_turns

from clasper_worker.devkit.local_stack.bare_environment import bare_environment
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, start_redis
from clasper_worker.engine.processes.cpu import usable_cpus

NO_HISTORY = -1
_START_SECONDS = 60.0
_STALL_SECONDS = 20.0
_FEWEST, _MOST = 100, 20_000  # turns of a batch


@dataclass(slots=True)
class Batch:
    """A batch of turns that workers carried out.

    Attributes:
        turns: how many.
        seconds: from their release to the last reply's arrival at the backend.
        cpu: seconds of the workers.
        others: CPU milliseconds a turn of Redis, the model server and the backend.
        calls: how often which endpoint was called.
        users: the turns' users, by the turns' Celery ids.
    """

    turns: int
    seconds: float
    cpu: float
    others: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    users: dict[str, str] = field(default_factory=dict)

    @property
    def per_second(self) -> float:
        """Turns a second."""
        return self.turns / self.seconds

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds a turn."""
        return self.cpu / self.turns * 1000


class Rig:
    """Redis and the servers, running; make it with `open_rig`."""

    def __init__(self, broker: RunningRedis, model: Server, backend: Server, folder: Path) -> None:
        self.broker = broker
        self.model = model
        self.backend = backend
        self.folder = folder
        self.backlog = Backlog(broker.url)
        self.faults = Faults()
        self.last_rate = 0.0  # turns a second of the last batch
        self._history = NO_HISTORY
        self._others = {
            "redis": psutil.Process(broker.pid),
            "model": model.stats,
            "backend": backend.stats,
        }

    def environment(self, **variables: str) -> dict[str, str]:
        """A worker's variables: of the caller's only what programs need; ours are all set here."""
        return {
            **bare_environment(os.environ),
            "PYTHONPATH": str(ROOT),
            "BACKEND_URL": self.backend.url,
            "INTERNAL_API_TOKEN": TOKEN,
            "AGENT_JWT_SECRET": "a-secret-of-the-benchmark-and-of-nothing-else",
            "OPENAI_BASE_URL": f"{self.model.url}/v1",
            "OPENAI_API_KEY": "none",
            "CELERY_BROKER_URL": self.broker.url,
            "CLASPER_WORKSPACE": str(ROOT / "workspace"),
            "CLASPER_LOG_FORMAT": "json",
            **variables,
        }

    def behave(
        self, *, latency: float = 0.0, history: int = NO_HISTORY, **streaming: float
    ) -> None:
        """Set the model's latency in seconds, and the messages that the backend has of a task.

        ``streaming``: its ``chunks``, the ``pause`` between them, and whether the first
        ``says_when`` it was sent.
        """
        self._history = history
        self.model.configure(latency=latency, **streaming)
        self.backend.configure(history=history)

    @contextlib.contextmanager
    def workers(
        self,
        count: int = 1,
        options: Sequence[str] = (),
        *,
        warm_up: int,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[list[Worker]]:
        """Workers on an empty broker, ready and warm; stopped at the end, their logs read."""
        self.backlog.clear()
        environment = self.environment(**(variables or {}))
        cpus: Sequence[int | None] = usable_cpus()
        if count == 1 or len(cpus) != count:
            cpus = [None] * count
        with contextlib.ExitStack() as stack:
            workers = [
                stack.enter_context(Worker(f"w{number}", options, environment, self.folder, cpu))
                for number, cpu in enumerate(cpus, 1)
            ]
            self._wait_until_ready(workers)
            if warm_up:
                self.run(workers, make_turns(warm_up * count))
            yield workers
            for worker in workers:
                worker.begin_stop()  # all at once, then each is waited for
        for worker in workers:
            self.faults.notes += [f"log: {line}" for line in worker.errors()]

    @contextlib.contextmanager
    def beat(
        self,
        arguments: Sequence[str] = ("-m", "clasper_worker", "beat"),
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[Program]:
        """Celery Beat with the product's schedule; stopped at the end, its log read."""
        environment = self.environment(**(variables or {}))
        with Program("beat", arguments, environment, self.folder) as beat:
            yield beat
        self.faults.notes += [f"log: {line}" for line in beat.errors()]

    def run(
        self,
        workers: Sequence[Worker],
        turns: Sequence[Turn],
        *,
        history: Sequence[Mapping[str, str]] = (),
        while_waiting: Any = None,
    ) -> Batch:
        """Have the workers carry out these turns, and check every one."""
        ids = self.backlog.fill(turns, history)
        self.backend.configure(history=self._history)
        processes = [worker.stats for worker in workers]
        cpu = sum(map(cpu_seconds, processes))
        others = {name: cpu_seconds(process) for name, process in self._others.items()}
        began = time.monotonic()
        self.backlog.release()
        last = self.wait_for_posts(len(turns), workers, while_waiting)
        wait_until_idle(processes)
        batch = Batch(len(turns), last - began, sum(map(cpu_seconds, processes)) - cpu)
        batch.others = {
            name: (cpu_seconds(process) - others[name]) / len(turns) * 1000
            for name, process in self._others.items()
        }
        batch.calls = self.backend.ask("counts")["calls"]
        batch.users = {name: turn.user_id for name, turn in ids.items()}
        self.faults.add(check_posts(turns, self.backend.ask("posts")))
        self.faults.add(self.backlog.check_results(ids))
        self.backlog.forget(ids)
        self.last_rate = batch.per_second
        return batch

    def turns_for(self, seconds: float, fewest: int = 0) -> list[Turn]:
        """New turns, as many as should take about so long by the last batch's rate."""
        return make_turns(min(max(int(self.last_rate * seconds), fewest, _FEWEST), _MOST))

    def wait_for_posts(
        self, count: int, workers: Sequence[Program] = (), while_waiting: Any = None
    ) -> float:
        """Wait until the backend has so many replies; returns when the last one came.

        Where none comes for twenty seconds it returns all the same: the check that follows counts
        what is missing.
        """
        seen, deadline = -1, 0.0
        while True:
            counts = self.backend.ask("counts")
            if counts["posts"] > seen:
                seen, deadline = counts["posts"], time.monotonic() + _STALL_SECONDS
            if seen >= count or time.monotonic() > deadline:
                return float(counts["last"])
            for worker in workers:
                worker.check_alive()
            if while_waiting is not None:
                while_waiting()
            time.sleep(0.02)

    def _wait_until_ready(self, workers: Sequence[Worker]) -> None:
        wanted = {worker.node for worker in workers}
        deadline = time.monotonic() + _START_SECONDS
        with Celery("bench", broker=self.broker.url, set_as_current=False) as app:
            while True:
                answers = app.control.ping(timeout=0.5, limit=len(wanted)) or []
                if wanted <= {node for answer in answers for node in answer}:
                    return
                for worker in workers:
                    worker.check_alive()
                if time.monotonic() > deadline:
                    raise BenchmarkError("the workers were not ready within a minute")


@contextlib.contextmanager
def open_rig() -> Iterator[Rig]:
    """Start Redis (append-only file on) and the servers; stop them at the end."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="clasper-bench-")))
        broker = stack.enter_context(start_redis())
        model, backend = Server("model"), Server("backend")
        stack.callback(model.stop)
        stack.callback(backend.stop)
        yield Rig(broker, model, backend, folder)
