"""Where a row plays: Redis, the two servers, workers, and a stock Celery app that sends."""

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

from celery import Celery
from redis import Redis
from redis.exceptions import RedisError

from clasper_worker.local_stack.redis_server import RunningRedis, start_redis
from clasper_worker.settings import Settings
from tests.chaos.options import Options
from tests.chaos.records import Disturbance, ModelCall, Post, RowRecord, SentTurn, TurnEnd
from tests.chaos.script import message_for, token_of
from tests.chaos.server_process import ROOT, ServerProcess
from tests.chaos.workers import Nursery, Worker, wait_until

QUEUE = "clasper"
_SECRET = "a-secret-of-the-fault-matrix-and-of-nothing-else"
_READY_SECONDS = 60.0
_LONGEST_SECONDS = 1800.0
_CHUNK = 500


class Scene:
    """A row's stage; make it with `open_scene`.

    Attributes:
        options: of the run.
        random: seeded by the run's seed and the row's name.
        disturbances: what was done to it, in order.
        notes: what should be told of the row besides its figures.
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
    ) -> None:
        self.options = options
        self.random = random.Random(seed)
        self.redis = redis
        self.model = model
        self.backend = backend
        self.disturbances: list[Disturbance] = []
        self.notes: list[str] = []
        self._nursery = nursery
        self._folder = folder
        self._workers: list[Worker] = []
        self._crashed: list[str] = []
        self._sent: list[SentTurn] = []
        self._sessions = 0
        self._ends: dict[str, TurnEnd] = {}
        self._began = self._moved = time.monotonic()
        self._seen: tuple[int, ...] = ()
        # As a customer's backend: it knows the broker, and nothing of ours.
        self.app = Celery("chaos", broker=redis.url, set_as_current=False)
        self.reader = Celery("chaos-reader", backend=redis.url, set_as_current=False)
        self.client: Redis = Redis.from_url(redis.url, socket_timeout=60)

    # Workers

    @property
    def workers(self) -> list[Worker]:
        """Those that run and were not told to end."""
        return [worker for worker in self._workers if worker.running and not worker.told_to_end]

    def worker(self, name: str) -> Worker:
        """A worker by its name."""
        return next(worker for worker in self._workers if worker.name == name)

    def start_worker(self, *, wait: bool = False, concurrency: int = 0) -> Worker:
        """Start a worker under a name of its own; ``wait`` until it answers a ping."""
        name = f"w{len(self._workers) + 1}"
        folder = self._folder / name
        folder.mkdir()
        log = folder / "log"
        size = concurrency or self.options.concurrency
        arguments = ["-A", "clasper_worker", "worker", "-n", f"{name}@chaos", "-c", str(size)]
        pid = self._nursery.start(arguments, self._environment(name, folder), folder, log)
        worker = Worker(name, pid, self._nursery, log)
        self._workers.append(worker)
        if wait and not wait_until(lambda: self._answers(name), _READY_SECONDS):
            raise RuntimeError(f"{name} did not come up:\n{worker.last_lines()}")
        return worker

    def look_after_workers(self) -> None:
        """Note each worker that ended although nobody had told it to, and replace it."""
        for worker in self._workers:
            if not worker.told_to_end and not worker.running:
                worker.told_to_end = True
                self._crashed.append(f"{worker.name} ended by itself, code {worker.exit_code}")
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
    ) -> list[SentTurn]:
        """Send turns of new sessions, one of each session in turn.

        Args:
            turns: how many.
            sessions: over how many; four turns each unless given.
            tools: the share of turns that create a document.
            slow: whether the model takes long.
        """
        sessions = sessions or max(1, turns // 4)
        names = [f"s{self._sessions + n:03d}" for n in range(sessions)]
        self._sessions += sessions
        sent = []
        for index in range(turns):
            token = token_of(names[index % sessions], index // sessions)
            sent.append(self.send(token, tool=self.random.random() < tools, slow=slow))
        return sent

    def send(self, token: str, *, tool: bool = False, slow: bool = False) -> SentTurn:
        """Send one turn."""
        request = request_for(token, tool=tool, slow=slow)
        at = time.monotonic()
        task = self.app.send_task("clasper.send", kwargs=request, queue=QUEUE)
        turn = SentTurn(token, request["user_id"], (str(task.id),), tool, at)
        self._sent.append(turn)
        return turn

    def was_sent(self, turn: SentTurn) -> None:
        """Count a turn that was sent otherwise."""
        self._sent.append(turn)

    def new_session(self) -> str:
        """The name of a session that has no turns yet."""
        self._sessions += 1
        return f"s{self._sessions - 1:03d}"

    # The end

    def settle(self) -> None:
        """Wait until every turn has ended, or nothing has moved for a while; then look on."""
        began = time.monotonic()
        while pending := self._pending():
            self.look_after_workers()
            if self.stuck():
                self.notes.append(f"gave up: {len(pending)} tasks without a result")
                return
            if time.monotonic() - began > _LONGEST_SECONDS:
                self.notes.append("gave up: it never came to rest")
                return
            time.sleep(0.2)
        ended = time.monotonic()
        while time.monotonic() < ended + self.options.quiet:
            self.look_after_workers()
            time.sleep(0.5)

    def stuck(self) -> bool:
        """Whether no call was made and no turn ended for as long as patience lasts.

        Patience begins anew with the first question after a time of rest.
        """
        calls = (self.model.counts()["calls"], self.backend.counts()["calls"])
        now = (len(self._ends), *calls)
        if now != self._seen:
            self._seen, self._moved = now, time.monotonic()
        return time.monotonic() - self._moved > self.options.patience

    def record(self, row: str) -> RowRecord:
        """Everything that happened."""
        self._pending()
        ids = {name: turn.token for turn in self._sent for name in turn.celery_ids}
        ends = (
            self._ends.get(name) or TurnEnd(token, name, "PENDING") for name, token in ids.items()
        )
        return RowRecord(
            row=row,
            seed=self.options.seed,
            sent=tuple(self._sent),
            calls=tuple(ModelCall(**call) for call in self.model.records()["calls"]),
            posts=tuple(Post(**post) for post in self.backend.records()["posts"]),
            ends=tuple(ends),
            disturbances=tuple(self.disturbances),
            crashed=tuple(self._crashed),
            notes=tuple(self.notes),
            seconds=time.monotonic() - self._began,
            settings=dataclasses.asdict(self.options),
        )

    def ended(self) -> int:
        """How many Celery tasks have a final result by now."""
        self._pending()
        return len(self._ends)

    def close(self) -> None:
        """Kill the workers and close connections."""
        for worker in self._workers:
            if worker.running:
                worker.told_to_end = True
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(worker.pid, 9)
        self.app.close()
        self.reader.close()
        self.client.close()

    def _pending(self) -> list[str]:
        """Celery tasks without a final result; a final one is remembered, should it be deleted."""
        ids = [
            (name, turn.token)
            for turn in self._sent
            for name in turn.celery_ids
            if name not in self._ends
        ]
        backend = self.reader.backend
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            try:
                values = self.client.mget([backend.get_key_for_task(name) for name, _ in chunk])
            except (RedisError, OSError):
                break
            for (name, token), value in zip(chunk, values, strict=True):
                if value is not None:
                    self._note_end(name, token, backend.decode_result(value))
        return [name for name, _ in ids if name not in self._ends]

    def _note_end(self, name: str, token: str, meta: dict[str, Any]) -> None:
        state = meta["status"]
        if state == "SUCCESS":
            result = meta["result"]
            end = TurnEnd(token, name, state, result["turn_id"], result["response"])
        elif state in {"FAILURE", "REVOKED"}:
            error = meta["result"]
            kind = error["exc_type"] if isinstance(error, dict) else type(error).__name__
            end = TurnEnd(token, name, state, error=str(kind))
        else:
            return
        self._ends[name] = end

    def _answers(self, name: str) -> bool:
        return bool(self.app.control.ping([f"{name}@chaos"], timeout=0.3))

    def _environment(self, name: str, folder: Path) -> dict[str, str]:
        ours = {field.upper() for field in Settings.model_fields}
        kept = {key: value for key, value in os.environ.items() if key not in ours}
        return {
            **kept,
            "PYTHONPATH": str(ROOT),
            "PYTHONUNBUFFERED": "1",
            "CELERY_BROKER_URL": self.redis.url,
            "BACKEND_URL": self.backend.url_for(name),
            "OPENAI_BASE_URL": f"{self.model.url_for(name)}/v1",
            "OPENAI_API_KEY": "none",
            "AGENT_JWT_SECRET": _SECRET,
            "CLASPER_WORKSPACE": str(ROOT / "workspace"),
            "CLASPER_STATE_DIR": str(folder / "state"),
            "CLASPER_LOG_FORMAT": "json",
            "CLASPER_VISIBILITY_TIMEOUT_SEC": f"{self.options.visibility_seconds:g}",
        }


def request_for(token: str, *, tool: bool = False, slow: bool = False) -> dict[str, Any]:
    """The send request of a turn: two sessions to a tenant, a thread to a session."""
    session = token.partition(".")[0]
    number = int(session[1:])
    user, role = f"u{number // 2}", f"r{number % 2}"
    return {
        "user_id": user,
        "session_key": f"user:{user}:{role}",
        "message": message_for(token, tool=tool, slow=slow),
        "task_title": f"Thread {session}",
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
) -> Iterator[Scene]:
    """Start Redis (append-only file on) and the servers; stop everything at the end."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CHAOS_SEED": str(seed),
        "CHAOS_LATENCY": str(latency),
        "CHAOS_SLOW": str(slow),
    }
    with ExitStack() as stack:
        redis = stack.enter_context(start_redis(folder / "redis"))
        servers: Sequence[ServerProcess] = [
            stack.enter_context(ServerProcess(name, environment, folder / f"{name}.log"))
            for name in ("recording_model", "recording_backend")
        ]
        scene = Scene(options, seed, redis, servers[0], servers[1], nursery, folder)
        stack.callback(scene.close)
        yield scene
