"""Mission Control's endpoints under the internal token: notifications, and who the agents are."""

from __future__ import annotations

import json
import time
from typing import Any
from urllib.parse import parse_qs, unquote

from http_protocol import Answer, Handler, Request
from undelivered import Undelivered

TOKEN = "an-internal-token-of-the-benchmark"
AGENT_ROLE = "writer"

_DELIVER = "dispatch/notifications/"


class InternalEndpoints:
    """The dispatcher's and the roster's side of the backend, and what it was told."""

    def __init__(self) -> None:
        self._undelivered = Undelivered()
        self._acknowledged: list[tuple[float, str, str]] = []
        self._first_listed = 0.0
        self._agents = 0
        self._endpoints: dict[str, Handler] = {
            "GET dispatch/undelivered": self._list,
            "POST deliver": self._deliver,
            "GET agents": self._list_agents,
        }

    def handler(self, method: str, name: str) -> tuple[str, Handler | None]:
        """An endpoint's name, without ids, and who answers it; None where it is not one of these.

        Args:
            method: of the request.
            name: its path behind the base.
        """
        if name.startswith(_DELIVER) and name.endswith("/deliver"):
            name = "deliver"
        endpoint = f"{method} {name}"
        answer = self._endpoints.get(endpoint)
        return endpoint, None if answer is None else lambda request: self._guard(request, answer)

    def counts(self) -> dict[str, float]:
        """How many were acknowledged and when the last was, and when any were first listed."""
        told = self._acknowledged
        return {
            "acknowledged": len(told),
            "last_acknowledged": told[-1][0] if told else 0.0,
            "first_listed": self._first_listed,
        }

    def command(self, request: Request) -> Answer | None:
        """Carry out a command of the benchmark; None where it is not one of these."""
        if request.path == b"/bench/notify":
            self._undelivered.add(json.loads(request.body))
        elif request.path == b"/bench/agents":
            self._agents = int(json.loads(request.body))
        elif request.path == b"/bench/acknowledged":
            return _json(self._acknowledged)
        else:
            return None
        return Answer(b"{}")

    def forget(self) -> None:
        """Drop everything that it was given or told."""
        self._undelivered, self._acknowledged = Undelivered(), []
        self._first_listed, self._agents = 0.0, 0

    def _guard(self, request: Request, answer: Handler) -> Answer:
        if request.header(b"x-internal-token") != TOKEN.encode():
            return Answer(b'{"error": "not the internal token"}', b"401 Unauthorized")
        return answer(request)

    def _list(self, request: Request) -> Answer:
        query = _query(request)
        page = self._undelivered.page(int(query["limit_users"]), int(query["limit_notifications"]))
        if page and not self._first_listed:
            self._first_listed = time.monotonic()
        return _json({"deliveries": page})

    def _deliver(self, request: Request) -> Answer:
        stamp = time.monotonic()
        name = unquote(request.path.decode().rpartition("/deliver")[0].rpartition("/")[2])
        user = _query(request)["user_id"]
        if not self._undelivered.deliver(name, user):
            return Answer(b'{"error": "no such notification"}', b"404 Not Found")
        self._acknowledged.append((stamp, user, name))
        return Answer(b"{}")

    def _list_agents(self, request: Request) -> Answer:
        query = _query(request)
        start = int(query.get("cursor", "0"))
        stop = min(start + int(query["limit"]), self._agents)
        page: dict[str, Any] = {
            "items": [
                {"user_id": agent_user(number), "agent_role": AGENT_ROLE}
                for number in range(start, stop)
            ]
        }
        if stop < self._agents:
            page["next_cursor"] = str(stop)
        return _json(page)


def agent_user(number: int) -> str:
    """The user of an agent that the backend lists."""
    return f"agent-{number}"


def _query(request: Request) -> dict[str, str]:
    return {name: values[-1] for name, values in parse_qs(request.query.decode()).items()}


def _json(value: object) -> Answer:
    return Answer(json.dumps(value).encode())
