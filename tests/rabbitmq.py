"""A RabbitMQ node of a test's own: the distribution's server, with its own data, name and ports."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from clasper_worker.engine.processes.guard import Guard
from tests.chaos.workers import wait_until

_FOLDERS = ("/usr/lib/rabbitmq/bin", "/usr/local/sbin", "/opt/homebrew/sbin")
_START_SECONDS = 120.0
_STOP_SECONDS = 60.0


def find_rabbitmq() -> str | None:
    """The folder of the server's own scripts; None where it is not installed.

    Not Debian's wrappers on the PATH: those run everything as another user, for the system's node.
    """
    for folder in _FOLDERS:
        if Path(folder, "rabbitmq-server").exists():
            return folder
    return None


@dataclass
class RabbitMQ:
    """A running node.

    Attributes:
        url: for Celery.
    """

    url: str
    _bin: str
    _environment: dict[str, str]
    _log: Path
    _process: subprocess.Popen[bytes] | None = None
    _guard: Guard = field(default_factory=Guard)

    def start(self) -> None:
        """Start the node, and wait until it takes connections."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [f"{self._bin}/rabbitmq-server"],
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self._guard.watch(self._process.pid)
        if not wait_until(self._answers, _START_SECONDS, 0.2):
            raise RuntimeError(f"RabbitMQ did not come up:\n{self._log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop the node, as a restart of the server does; what is durable is kept."""
        process = self._process
        if process is None:
            return
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        # The script that was told to may have ended without the server.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        self._guard.forget(process.pid)
        self._process = None

    def restart(self) -> None:
        """Stop and start the node."""
        self.stop()
        self.start()

    def close_connections(self) -> None:
        """Close all clients' connections from the server's side."""
        self.ctl("close_all_connections", "a test")

    def ctl(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` says."""
        done = subprocess.run(
            [f"{self._bin}/rabbitmqctl", "--quiet", *arguments],
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        return done.stdout

    def close(self) -> None:
        """Stop the node, and the daemon by which Erlang's nodes find each other."""
        self.stop()
        self._guard.close()
        epmd = shutil.which("epmd")
        if epmd:
            with contextlib.suppress(subprocess.SubprocessError):
                subprocess.run(
                    [epmd, "-kill"],
                    env=self._environment,
                    capture_output=True,
                    timeout=20,
                    check=False,
                )

    def _answers(self) -> bool:
        process = self._process
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"RabbitMQ ended:\n{self._log.read_text()[-2000:]}")
        port = int(self._environment["RABBITMQ_NODE_PORT"])
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as probe:
                probe.sendall(b"AMQP\x00\x00\x09\x01")
                return probe.recv(1) != b""
        except OSError:
            return False


@contextlib.contextmanager
def start_rabbitmq(folder: Path) -> Iterator[RabbitMQ]:
    """A node on loopback, with nothing of the system's; it is gone at the end.

    Raises:
        RuntimeError: it is not installed, or did not come up.
    """
    scripts = find_rabbitmq()
    if scripts is None:
        raise RuntimeError("RabbitMQ is not installed here: install rabbitmq-server")
    folder.mkdir(parents=True, exist_ok=True)
    plugins = folder / "plugins"
    plugins.write_text("[].\n")
    node, distribution, epmd = (_free_port() for _ in range(3))
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RABBITMQ")},
        "HOME": str(folder),  # of Erlang's cookie
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd),
        "RABBITMQ_NODENAME": f"clasper{node}@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODE_PORT": str(node),
        "RABBITMQ_DIST_PORT": str(distribution),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        "RABBITMQ_MNESIA_BASE": str(folder / "data"),
        "RABBITMQ_LOG_BASE": str(folder / "logs"),
        "RABBITMQ_PID_FILE": str(folder / "pid"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(plugins),
        "RABBITMQ_CONFIG_FILE": str(folder / "none"),
        "RABBITMQ_CONF_ENV_FILE": str(folder / "none"),
    }
    url = f"amqp://guest:guest@127.0.0.1:{node}//"
    server = RabbitMQ(url, scripts, environment, folder / "server.log")
    try:
        server.start()
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
