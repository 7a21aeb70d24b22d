"""Where a row plays: Redis, the two servers, workers, and callers."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from clasper_worker.devkit.local_stack.bare_environment import bare_environment
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, start_redis
from tests.chaos.callers import Callers
from tests.chaos.options import Options
from tests.chaos.records import Ack, Disturbance, Heard, ModelCall, Post, RowRecord, SentTurn, Tick
from tests.chaos.script import token_of
from tests.chaos.server_process import ROOT, ServerProcess
from tests.chaos.workers import Nursery, Process, wait_until
from tests.rabbitmq import RabbitMQ, start_rabbitmq

_SECRET = "a-secret-of-the-fault-matrix-and-of-nothing-else"
_READY_SECONDS = 60.0
_LONGEST_SECONDS = 1800.0


class Scene:
    """A row's stage; make it with `open_scene`.

    Attributes:
        options: of the run.
        redis: the broker, or beside RabbitMQ, for results and our state.
        rabbitmq: the broker, in a row that asks for it.
        broker_url: of the broker.
        model: the recording model.
        backend: the recording backend.
        callers: send turns and get results.
        random: seeded by the run's seed and the row's name.
        disturbances: what was done to it, in order.
        notes: what should be told of the row besides its figures.
        ticks: what Beats sent.
        heard: what listeners of streams have in the end.
        crashed: processes that ended although nobody had told them to.
        settings: variables for workers and Beats beyond the usual ones.
        worker_options: of ``celery worker`` beyond the usual ones.
    """

    def __init__(
        self,
        options: Options,
        seed: int,
        redis: RunningRedis,
        model: ServerProcess,
        backend: ServerProcess,
        nursery: Nursery,
        folder: Path,
        rabbitmq: RabbitMQ | None = None,
    ) -> None:
        self.options = options
        self.random = random.Random(seed)
        self.redis = redis
        self.rabbitmq = rabbitmq
        self.broker_url = rabbitmq.url if rabbitmq else redis.url
        self.model = model
        self.backend = backend
        self.callers = Callers(redis.url, self.broker_url)
        self.disturbances: list[Disturbance] = []
        self.notes: list[str] = []
        self.ticks: list[Tick] = []
        self.heard: list[Heard] = []
        self.crashed: list[str] = []
        self.settings: dict[str, str] = {}
        self.worker_options: tuple[str, ...] = ()
        self._nursery = nursery
        self._folder = folder
        self._processes: list[Process] = []
        self._workers: list[Process] = []
        self._sessions = 0
        self._began = self._moved = time.monotonic()
        self._seen: tuple[int, ...] = ()

    # Workers

    @property
    def workers(self) -> list[Process]:
        """Those that run and were not told to end."""
        return [worker for worker in self._workers if worker.running and not worker.told_to_end]

    def worker(self, name: str) -> Process:
        """A worker by its name."""
        return next(worker for worker in self._workers if worker.name == name)

    def start_worker(self, *, wait: bool = False, concurrency: int = 0) -> Process:
        """Start a worker under a name of its own; ``wait`` until it answers a ping."""
        name = f"w{len(self._workers) + 1}"
        size = concurrency or self.options.concurrency
        arguments = ["-A", "clasper_worker", "worker", "-n", f"{name}@chaos", "-c", str(size)]
        arguments += self.worker_options
        worker = self.start(name, arguments)
        self._workers.append(worker)
        if wait and not wait_until(lambda: self._answers(name), _READY_SECONDS):
            raise RuntimeError(f"{name} did not come up:\n{worker.last_lines()}")
        return worker

    def start(self, name: str, arguments: list[str], *, module: str = "celery") -> Process:
        """Start ``python -m MODULE ARGUMENTS`` in a folder of its own, until the scene ends."""
        folder = self._folder / name
        folder.mkdir()
        log = folder / "log"
        log.touch()  # for readers that come before its first line
        environment = self._environment(name, folder)
        pid = self._nursery.start(arguments, environment, folder, log, module=module)
        self._processes.append(Process(name, pid, self._nursery, log))
        return self._processes[-1]

    def look_after_workers(self) -> None:
        """Note each worker that ended although nobody had told it to, and replace it."""
        for worker in self._workers:
            if not worker.told_to_end and not worker.running:
                worker.told_to_end = True
                self.crashed.append(f"{worker.name} ended by itself, code {worker.exit_code}")
                self.start_worker()

    def disturb(self, what: str, at: float, until: float, **more: Any) -> None:
        """Record a fault."""
        self.disturbances.append(Disturbance(what, at, until, **more))

    # Turns

    def send_batch(
        self,
        turns: int,
        *,
        sessions: int = 0,
        tools: float = 0.25,
        slow: bool = False,
        stream: bool = False,
    ) -> list[SentTurn]:
        """Send turns of new sessions, one of each session in turn.

        Args:
            turns: how many.
            sessions: over how many; four turns each unless given.
            tools: the share of turns that create a document.
            slow: whether the model takes long.
            stream: whether they ask for their text as it comes.
        """
        sessions = sessions or max(1, turns // 4)
        names = [f"s{self._sessions + n:03d}" for n in range(sessions)]
        self._sessions += sessions
        sent = []
        for index in range(turns):
            token = token_of(names[index % sessions], index // sessions)
            tool = self.random.random() < tools
            sent.append(self.callers.send(token, tool=tool, slow=slow, stream=stream))
        return sent

    def new_session(self) -> str:
        """The name of a session that has no turns yet."""
        self._sessions += 1
        return f"s{self._sessions - 1:03d}"

    # The end

    def settle(self) -> None:
        """Wait until every turn has ended, or nothing has moved for a while; then look on."""
        began = time.monotonic()
        while pending := self.pending():
            self.look_after_workers()
            if self.stuck():
                self.notes.append(f"gave up: {pending} without a result")
                return
            if time.monotonic() - began > _LONGEST_SECONDS:
                self.notes.append("gave up: it never came to rest")
                return
            time.sleep(0.2)
        ended = time.monotonic()
        while time.monotonic() < ended + self.options.quiet:
            self.look_after_workers()
            time.sleep(0.5)

    def pending(self) -> int:
        """How many Celery tasks have no result, and notifications no acknowledgement."""
        return len(self.callers.pending()) + int(self.backend.counts()["undelivered"])

    def stuck(self) -> bool:
        """Whether no call was made and no turn ended for as long as patience lasts.

        Patience begins anew with the first question after a time of rest.
        """
        calls = (self.model.counts()["calls"], self.backend.counts()["calls"])
        now = (self.callers.ended(), *calls)
        if now != self._seen:
            self._seen, self._moved = now, time.monotonic()
        return time.monotonic() - self._moved > self.options.patience

    def record(self, row: str) -> RowRecord:
        """Everything that happened."""
        posted = self.backend.records()
        return RowRecord(
            row=row,
            seed=self.options.seed,
            sent=tuple(self.callers.sent),
            calls=tuple(ModelCall(**call) for call in self.model.records()["calls"]),
            posts=tuple(Post(**post) for post in posted["posts"]),
            ends=self.callers.ends(),
            acks=tuple(Ack(**ack) for ack in posted["acks"]),
            ticks=tuple(self.ticks),
            heard=tuple(self.heard),
            disturbances=tuple(self.disturbances),
            crashed=tuple(self.crashed),
            notes=tuple(self.notes),
            seconds=time.monotonic() - self._began,
            settings=dataclasses.asdict(self.options),
        )

    def close(self) -> None:
        """Kill workers and Beats, and close connections."""
        for process in self._processes:
            if process.running:
                process.told_to_end = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, 9)
        self.callers.close()

    def _answers(self, name: str) -> bool:
        return bool(self.callers.app.control.ping([f"{name}@chaos"], timeout=0.3))

    def _environment(self, name: str, folder: Path) -> dict[str, str]:
        return {
            **bare_environment(os.environ),
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CELERY_BROKER_URL": self.broker_url,
            "CELERY_RESULT_BACKEND": self.redis.url,
            "CLASPER_REDIS_URL": self.redis.url,
            "BACKEND_URL": self.backend.url_for(name),
            "OPENAI_BASE_URL": f"{self.model.url_for(name)}/v1",
            "OPENAI_API_KEY": "none",
            "AGENT_JWT_SECRET": _SECRET,
            "INTERNAL_API_TOKEN": _SECRET,
            "CLASPER_WORKSPACE": str(ROOT / "workspace"),
            "CLASPER_STATE_DIR": str(folder / "state"),
            "CLASPER_LOG_FORMAT": "json",
            "CLASPER_VISIBILITY_TIMEOUT_SEC": f"{self.options.visibility_seconds:g}",
            **self.settings,
        }


@contextlib.contextmanager
def open_scene(
    options: Options,
    seed: int,
    nursery: Nursery,
    folder: Path,
    *,
    latency: float = 0.1,
    slow: float = 0.0,
    pause: float = 0.0,
    with_rabbitmq: bool = False,
) -> Iterator[Scene]:
    """Start Redis (append-only file on) and the servers; stop everything at the end."""
    environment = {
        **bare_environment(os.environ),
        "PYTHONPATH": str(ROOT),
        "CHAOS_SEED": str(seed),
        "CHAOS_LATENCY": str(latency),
        "CHAOS_SLOW": str(slow),
        "CHAOS_PAUSE": str(pause),
    }
    with ExitStack() as stack:
        redis = stack.enter_context(start_redis(folder / "redis"))
        servers: Sequence[ServerProcess] = [
            stack.enter_context(ServerProcess(name, environment, folder / f"{name}.log"))
            for name in ("recording_model", "recording_backend")
        ]
        rabbitmq = None
        if with_rabbitmq:
            rabbitmq = stack.enter_context(start_rabbitmq(folder / "rabbitmq"))
        scene = Scene(options, seed, redis, servers[0], servers[1], nursery, folder, rabbitmq)
        stack.callback(scene.close)
        yield scene
