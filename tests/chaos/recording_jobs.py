"""What the recording backend has for jobs: agents, notifications, acknowledgements."""

from __future__ import annotations

import itertools
import math
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from tests.chaos.records import Ack, AckOutcome
from tests.chaos.script import find_token, token_of

INTERNAL_HEADER = "X-Internal-Token"
DELIVER = "deliver"
"""The endpoint that acknowledges, for a fault to strike."""

_UNDELIVERED = "dispatch/undelivered"
_NOTIFICATIONS = "dispatch/notifications/"
_OF_AGENTS = ("user_id", "agent_role")

Answer = tuple[int, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Agent:
    """One that is registered: the backend knows when its heartbeats are due."""

    number: int
    interval: float
    place: float


class RecordedJobs:
    """Lists what is given to it, and remembers every acknowledgement.

    Attributes:
        acks: all attempts, oldest first.
    """

    def __init__(self) -> None:
        self.acks: list[Ack] = []
        self._ids = itertools.count(1)
        self._tokens: dict[str, str] = {}  # by notification
        self._waiting: dict[str, dict[str, dict[str, Any]]] = {}  # by user, oldest first
        self._listed: list[dict[str, Any]] = []
        self._agents: dict[str, _Agent] = {}

    @property
    def undelivered(self) -> int:
        """How many notifications are not acknowledged."""
        return sum(map(len, self._waiting.values()))

    def answer(
        self, method: str, name: str, query: dict[str, str], body: dict[str, Any], worker: str
    ) -> Answer:
        """Status and content of an answer to a call under the internal token."""
        if (method, name) == ("GET", _UNDELIVERED):
            return 200, {"deliveries": self._page(query)}
        if method == "POST" and endpoint_of(name) == DELIVER:
            return self._acknowledge(_notification(name), query["user_id"], worker)
        if (method, name) == ("POST", "notifications"):
            return 201, self._give(body)
        if (method, name) == ("GET", "agents"):
            return 200, {"items": self._listed}
        if (method, name) == ("POST", "agents"):
            return 201, self._register(body)
        return 404, {"error": "no such endpoint", "code": "not_found"}

    def note_refused(self, name: str, worker: str) -> None:
        """Remember a call that a fault kept from doing anything."""
        if endpoint_of(name) == DELIVER:
            self._note(_notification(name), worker, "refused")

    def heartbeat_of(self, user: str) -> str:
        """The token of an agent's heartbeat at this moment."""
        agent = self._agents[user]
        slot = math.floor(time.time() / agent.interval - agent.place)
        return token_of(f"h{agent.number}", slot)

    def _page(self, query: dict[str, str]) -> list[dict[str, Any]]:
        users, each = int(query["limit_users"]), int(query["limit_notifications"])
        return [
            item
            for of_user in itertools.islice(self._waiting.values(), users)
            for item in itertools.islice(of_user.values(), each)
        ]

    def _give(self, body: dict[str, Any]) -> dict[str, Any]:
        item = {**body, "notification_id": f"n{next(self._ids)}"}
        named = item["notification_id"]
        self._tokens[named] = find_token(body["content"]) or ""
        self._waiting.setdefault(body["user_id"], {})[named] = item
        return {"id": named}

    def _acknowledge(self, named: str, user: str, worker: str) -> Answer:
        if named not in self._tokens:
            return 404, {"error": "no such notification", "code": "not_found"}
        of_user = self._waiting.get(user, {})
        self._note(named, worker, "stored" if of_user.pop(named, None) else "repeated")
        if not of_user:
            self._waiting.pop(user, None)
        return 200, {"id": named, "status": "delivered"}

    def _note(self, named: str, worker: str, outcome: AckOutcome) -> None:
        self.acks.append(Ack(self._tokens.get(named, ""), worker, time.monotonic(), outcome))

    def _register(self, body: dict[str, Any]) -> dict[str, Any]:
        """Keep an agent; its plan, a task that is done, is what its standup is written from."""
        number = int(body["number"])
        self._agents[body["user_id"]] = _Agent(number, body["interval"], body["place"])
        self._listed.append({name: body[name] for name in _OF_AGENTS})
        return {"plan": f"Plan [[{token_of(f'd{number}', 0)}]]"}


def endpoint_of(name: str) -> str:
    """What a fault calls the endpoint of a path."""
    is_delivery = name.startswith(_NOTIFICATIONS) and name.endswith(f"/{DELIVER}")
    return DELIVER if is_delivery else name


def _notification(name: str) -> str:
    return unquote(name.removeprefix(_NOTIFICATIONS).removesuffix(f"/{DELIVER}"))
