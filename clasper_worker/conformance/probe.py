"""What a check talks to a backend with: one tenant of its own."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx2
import jwt

from clasper_worker.conformance.registry import CheckFailed, CheckSkipped
from clasper_worker.conformance.target import Target

BASE = "/api/mission-control"
TASKS, MESSAGES, DOCUMENTS = f"{BASE}/tasks", f"{BASE}/messages", f"{BASE}/documents"
MARK = "[conformance]"
OK = (200, 201)
_ROLE = "conformance"
_TOKEN_SECONDS = 300
_SHOWN = 300  # characters of an answer
_MOST_PAGES = 500
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Answer:
    """What the backend answered.

    Attributes:
        status: the HTTP status.
        body: the JSON; None where there is none.
        shown: for the report, short and without secrets.
    """

    status: int
    body: Any
    shown: str

    def has(self, *statuses: int) -> Answer:
        """This answer, if it has one of these statuses.

        Raises:
            CheckFailed: it has not.
        """
        if self.status not in statuses:
            raise CheckFailed(self.shown)
        return self

    def object(self) -> dict[str, Any]:
        """The JSON object of a success.

        Raises:
            CheckFailed: it is no success, or no object.
        """
        self.has(*OK)
        if not isinstance(self.body, dict):
            raise CheckFailed(f"no JSON object: {self.shown}")
        return self.body

    def made(self) -> str:
        """The ``id`` of what was created.

        Raises:
            CheckFailed: there is none, or it is no text.
        """
        found = self.object().get("id")
        if not isinstance(found, str) or not found:
            raise CheckFailed(f"no text `id`: {self.shown}")
        return found

    def items(self, name: str = "items") -> list[dict[str, Any]]:
        """The objects of a page.

        Raises:
            CheckFailed: there is no such list.
        """
        found = self.object().get(name)
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise CheckFailed(f"no list `{name}` of objects: {self.shown}")
        return found


def require(fact: bool, came: str) -> None:
    """Fail the check unless `fact`.

    Raises:
        CheckFailed: with what came.
    """
    if not fact:
        raise CheckFailed(came)


class Probe:
    """One tenant; where tokens can be signed, one that nobody else is.

    Args:
        client: sends the requests.
        target: the backend.
        run: names this run in all that it leaves behind.
        features: what the backend says that it has.
    """

    def __init__(
        self, client: httpx2.AsyncClient, target: Target, run: str, features: Mapping[str, Any]
    ) -> None:
        self.client, self.target, self.run, self.features = client, target, run, features
        if target.secret is None:
            self.user = target.token_user() or "conformance"
            self.token = target.agent_token or ""
        else:
            self.user = f"conformance-{run}-{next(_numbers)}"
            self.token = self.forge()

    @property
    def signs(self) -> bool:
        """Whether it can make tokens."""
        return self.target.secret is not None

    def key(self) -> str:
        """An idempotency key that was never used."""
        return f"conformance:{self.run}:{next(_numbers)}"

    def forge(
        self, *, secret: str | None = None, algorithm: str | None = None, **claims: Any
    ) -> str:
        """A token of this tenant, with other claims where given (None leaves one out).

        Raises:
            CheckSkipped: there is no secret to sign with.
        """
        if self.target.secret is None:
            raise CheckSkipped("set AGENT_JWT_SECRET: this check signs tokens of its own")
        now = int(time.time())
        all_claims = {
            "type": "agent", "user_id": self.user, "agent_role": _ROLE,
            "iat": now, "exp": now + _TOKEN_SECONDS, **claims,
        }  # fmt: skip
        present = {name: value for name, value in all_claims.items() if value is not None}
        algorithm = algorithm or self.target.algorithm
        if algorithm == "none":
            return jwt.encode(present, None, algorithm="none")
        # HMAC itself pads a short key so: the same signature, without PyJWT's warning.
        key = (secret or self.target.secret).encode().ljust(64, b"\0")
        return jwt.encode(present, key, algorithm=algorithm)

    def other(self) -> Probe:
        """Another tenant.

        Raises:
            CheckSkipped: there is no secret to sign its token with.
        """
        if not self.signs:
            raise CheckSkipped("set AGENT_JWT_SECRET: this check needs a second tenant")
        return Probe(self.client, self.target, self.run, self.features)

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = "",
        internal: bool = False,
        raw: bytes | None = None,
        **params: Any,
    ) -> Answer:
        """One request.

        Args:
            method: of HTTP.
            path: from the base address on.
            body: JSON to send.
            token: the agent token; "" is this tenant's, None sends none.
            internal: send the internal token instead.
            raw: a body that is no JSON.
            params: of the query.

        Raises:
            CheckFailed: there was no answer.
            CheckSkipped: the internal token is not configured.
        """
        headers = {}
        if internal:
            headers["X-Internal-Token"] = self.internal_token()
        elif token is not None:
            headers["X-Agent-Token"] = token or self.token
        content = raw
        if body is not None:
            content = json.dumps(body, ensure_ascii=False).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            answer = await self.client.request(
                method, path, content=content, headers=headers, params=params or None
            )
        except httpx2.HTTPError as exc:
            raise CheckFailed(f"{method} {path}: no answer ({type(exc).__name__})") from exc
        try:
            parsed = answer.json()
        except (ValueError, RecursionError):
            parsed = None
        text = self.target.without_secrets(answer.text)
        cut = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        return Answer(
            answer.status_code, parsed, f"{method} {path} answered {answer.status_code}: {cut}"
        )

    def internal_token(self) -> str:
        """The internal token.

        Raises:
            CheckSkipped: it is not configured.
        """
        if self.target.internal_token is None:
            raise CheckSkipped("set INTERNAL_API_TOKEN: this is an endpoint for the dispatcher")
        return self.target.internal_token

    async def post(self, path: str, **body: Any) -> Answer:
        """POST a JSON object."""
        return await self.call("POST", path, body)

    async def get(self, path: str, **params: Any) -> Answer:
        """GET, with a query."""
        return await self.call("GET", path, **params)

    async def task(self, title: str = "a task") -> str:
        """Make a task, and give its id."""
        return (await self.post(TASKS, title=f"{MARK} {title}", idempotency_key=self.key())).made()

    async def all(
        self,
        path: str,
        *,
        until: Callable[[list[dict[str, Any]]], bool] | None = None,
        **params: Any,
    ) -> list[dict[str, Any]]:
        """All items of a list, over all its pages.

        Raises:
            CheckFailed: a page is none, or they have no end.
        """
        found: list[dict[str, Any]] = []
        cursor: dict[str, Any] = {}
        for _ in range(_MOST_PAGES):
            page = await self.get(path, **params, **cursor)
            found += page.items()
            following = page.object().get("next_cursor")
            if following is None or following == "" or (until is not None and until(found)):
                return found
            require({"cursor": following} != cursor, f"next_cursor repeats itself: {page.shown}")
            cursor = {"cursor": following}
        raise CheckFailed(f"GET {path}: no end after {_MOST_PAGES} pages")
