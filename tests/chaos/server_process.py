"""The recording servers as processes, and their control from the harness."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from tests.chaos.recording_server import HOST

ROOT = Path(__file__).resolve().parents[2]
_TRAP_SECONDS = 60.0


class TrapNotSprungError(Exception):
    """No call came to the point that a fault was to strike at."""


class ServerProcess:
    """One recording server; a context manager that ends it.

    Args:
        module: ``recording_model`` or ``recording_backend``.
        environment: further variables.
        log: where its own troubles go.
    """

    def __init__(self, module: str, environment: Mapping[str, str], log: Path) -> None:
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"tests.chaos.{module}"],
                stdin=subprocess.PIPE,  # its end tells the server that the harness has ended
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env=dict(environment),
            )
        assert self._process.stdout is not None
        ports = json.loads(self._process.stdout.readline())
        self._public = int(ports["port"])
        self.url = f"http://{HOST}:{self._public}"
        self._control = int(ports["control"])

    def url_for(self, worker: str) -> str:
        """The base URL by which a worker's calls are told from others'."""
        return f"{self.url}/w/{worker}"

    def behave(self, kind: str = "none", **more: float | str) -> int:
        """Set the fault (see `recording_server.Fault`); returns how many calls were struck."""
        return int(self._call("POST", "/fault", {"kind": kind, **more})["struck"])

    def arm(
        self,
        point: str,
        *,
        worker: str | None = None,
        hold: bool = True,
        pids: Mapping[str, int] | None = None,
        signal: int = 0,
        delay: float = 0.0,
    ) -> None:
        """Arm the trap (see `traps.Trap`) for the next call that comes to a point."""
        where = {"point": point, "worker": worker, "hold": hold}
        strike = {"pids": dict(pids or {}), "signal": signal, "delay": delay}
        self._call("POST", "/trap", {**where, **strike})

    def sprung(self, seconds: float = _TRAP_SECONDS) -> dict[str, Any]:
        """Wait until the trap springs: the call's ``token`` and ``worker``, and when (``at``).

        Raises:
            TrapNotSprungError: nothing came in time.
        """
        found = self._call("GET", f"/trap?seconds={seconds}", timeout=seconds + 10)
        if found is None:
            raise TrapNotSprungError
        return dict(found)

    def release(self) -> None:
        """Let go of the call that the trap holds."""
        self._call("POST", "/release", {})

    def counts(self) -> dict[str, Any]:
        """A few numbers: whether anything moves."""
        return dict(self._call("GET", "/counts"))

    def records(self) -> dict[str, Any]:
        """Everything that was recorded."""
        return dict(self._call("GET", "/records"))

    def post(self, path: str, body: Any, headers: Mapping[str, str]) -> Any:
        """Call the server as the people do whom it serves."""
        return self._call("POST", path, body, port=self._public, headers=headers)

    def _call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        timeout: float = 60.0,
        port: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        connection = http.client.HTTPConnection(HOST, port or self._control, timeout=timeout)
        try:
            content = None if body is None else json.dumps(body)
            kind = {"Content-Type": "application/json"}
            connection.request(method, path, content, {**kind, **(headers or {})})
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status not in {200, 201}:
            raise RuntimeError(f"{method} {path}: {answer.status} {text[:300]!r}")
        return json.loads(text)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.communicate()
