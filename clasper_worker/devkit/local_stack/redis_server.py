"""A Redis server of our own on 127.0.0.1, started and stopped; for tests and programs.

`clasper up` runs its server under the supervisor instead, with the same command line.
"""

from __future__ import annotations

import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clasper_worker.devkit.local_stack.ports import LOOPBACK, PortReservations
from clasper_worker.devkit.local_stack.redis_binary import (
    NO_SERVER,
    RedisBinary,
    find_redis,
    redis_command,
    redis_url,
)
from clasper_worker.engine.processes.guard import Guard
from clasper_worker.errors import StackError

__all__ = ["RedisBinary", "RunningRedis", "answers_ping", "find_redis", "start_redis"]

_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_POLL_SECONDS = 0.02
_ATTEMPTS = 3


class RunningRedis:
    """A Redis server started by :func:`start_redis`; a context manager that stops it.

    Attributes:
        binary: what runs.
        port: on 127.0.0.1.
        data_dir: where its append-only file and its log lie.
    """

    def __init__(self, binary: RedisBinary, port: int, data_dir: Path | None) -> None:
        self.binary = binary
        self.port = port
        self._own_dir = None if data_dir else tempfile.TemporaryDirectory(prefix="clasper-redis-")
        self.data_dir = Path(self._own_dir.name) if self._own_dir else Path(data_dir or "")
        self.data_dir.mkdir(parents=True, exist_ok=True)
        self._guard = Guard()
        self._process = self._spawn()

    @property
    def url(self) -> str:
        """For ``CELERY_BROKER_URL``."""
        return redis_url(self.port)

    @property
    def pid(self) -> int:
        """The server's process id."""
        return self._process.pid

    def stop(self) -> None:
        """Stop the server, its data written; killed if it takes too long. Safe to call twice."""
        self._end(signal.SIGTERM)
        self._guard.close()
        if self._own_dir:
            self._own_dir.cleanup()

    def kill(self) -> None:
        """End the server at once, as a crash would; :meth:`restart` brings it back."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Start the server again on the same port and data, stopped first if it runs.

        Raises:
            StackError: it does not come up.
        """
        self._end(signal.SIGTERM)
        self._process = self._spawn()
        self.wait_until_ready()

    def wait_until_ready(self) -> None:
        """Return once the server answers.

        Raises:
            StackError: it ended, or took longer than 20 seconds; with the last lines of its log.
        """
        deadline = time.monotonic() + _START_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            if answers_ping(self.port, self.pid if self.binary.durable else None):
                return
            time.sleep(_POLL_SECONDS)
        tail = "\n".join(self._log_path.read_text("utf-8", "replace").splitlines()[-10:])
        raise StackError(
            f"{self.binary.describe()} did not start on port {self.port}:\n{tail}",
            {"port": self.port},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def _log_path(self) -> Path:
        return self.data_dir / "redis.log"

    def _spawn(self) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - a server we found, no shell
                redis_command(self.binary, port=self.port, data_dir=self.data_dir),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._guard.watch(process.pid)
        return process

    def _end(self, how: signal.Signals) -> None:
        if self._process.poll() is None:
            self._process.send_signal(how)
            try:
                self._process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._guard.forget(self.pid)


def start_redis(
    data_dir: Path | None = None,
    *,
    port: int = 0,
    binary: RedisBinary | None = None,
) -> RunningRedis:
    """Start a Redis server of our own and wait until it answers.

    It ends with :meth:`RunningRedis.stop`, with its ``with`` block, or with this process, even
    one that is killed.

    Args:
        data_dir: where its data lie and are found again; None for a folder that goes with it.
        port: on 127.0.0.1; 0 for any free one.
        binary: which server; None for :func:`find_redis`'s, a real one.

    Raises:
        StackError: no server was found, the port is in use, or it does not start.
    """
    binary = binary or find_redis()
    if binary is None:
        raise StackError(NO_SERVER)
    for _ in range(_ATTEMPTS - 1):
        try:
            return _start_once(binary, port, data_dir)
        except StackError:
            if port:
                raise
            # Somebody may have taken the port between our choice and its use: try another.
    return _start_once(binary, port, data_dir)


def _start_once(binary: RedisBinary, port: int, data_dir: Path | None) -> RunningRedis:
    with PortReservations() as ports:
        chosen = ports.choose(port, required=bool(port), purpose="Redis")
        server = RunningRedis(binary, chosen, data_dir)
        try:
            server.wait_until_ready()
        except BaseException:
            server.stop()
            raise
    return server


def answers_ping(port: int, pid: int | None = None) -> bool:
    """Whether a Redis server answers on this loopback port.

    Args:
        port: on 127.0.0.1.
        pid: the process it must be, so that a stranger on the port is not taken for ours.
    """
    client = redis.Redis(
        host=LOOPBACK,
        port=port,
        socket_timeout=1,
        socket_connect_timeout=1,
        retry=Retry(NoBackoff(), 0),
    )
    try:
        if pid is None:
            return bool(client.ping())
        return int(client.info("server")["process_id"]) == pid
    except (redis.RedisError, OSError, KeyError):
        return False
    finally:
        client.close()
