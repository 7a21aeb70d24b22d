"""The recording backend: ``python -m tests.chaos.recording_backend``; contract part 1.

Tasks, messages, documents and the message history, with the contract's idempotency taken at its
word: the same key and the same bytes give the first answer again, other bytes a 409. What jobs ask
for under the internal token is `recording_jobs`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections import Counter, defaultdict
from dataclasses import asdict
from typing import Any

from aiohttp import web

from tests.chaos.recording_jobs import INTERNAL_HEADER, RecordedJobs, endpoint_of
from tests.chaos.recording_server import Fault, RecordingServer, serve, worker_of
from tests.chaos.records import Post, PostKind, PostOutcome
from tests.chaos.script import find_token

HISTORY = "history.received"
MESSAGE_RECEIVED = "message.received"
MESSAGE_STORED = "message.stored"
MESSAGE_ANSWERED = "message.answered"
DOCUMENT_RECEIVED = "document.received"
DOCUMENT_STORED = "document.stored"

_BASE = "/api/mission-control/"
_KINDS: dict[str, PostKind] = {"tasks": "task", "messages": "message", "documents": "document"}
_FEATURES = dict.fromkeys(
    ("tasks", "messages", "documents", "history", "notifications_dispatch", "heartbeat", "agents"),
    True,
)


class RecordingBackend:
    """Keeps what is posted, and remembers every create request with what became of it."""

    def __init__(self) -> None:
        self._posts: list[Post] = []
        # By kind, user and task ("" for tasks themselves), oldest first.
        self._stored: defaultdict[tuple[PostKind, str, str], list[dict[str, Any]]] = defaultdict(
            list
        )
        self._titles: dict[tuple[str, str], str] = {}  # by user and task
        self._jobs = RecordedJobs()
        self._known: dict[tuple[str, str], tuple[str, bytes]] = {}
        self._outcomes: Counter[str] = Counter()
        self._calls = 0

    async def handle(self, request: web.Request, server: RecordingServer) -> web.StreamResponse:
        """Answer one call of the contract."""
        worker, path = worker_of(request)
        name = path.removeprefix(_BASE)
        if INTERNAL_HEADER in request.headers:
            return await self._serve_jobs(request, server, name, worker)
        self._calls += 1
        user = _user(request)
        if user is None:
            return _json({"error": "no agent token", "code": "auth"}, 401)
        if request.method == "POST" and name in _KINDS:
            return await self._create(request, server, _KINDS[name], user, worker)
        if name == "heartbeat":
            return self._beat(user, worker)
        if name == "messages":
            await server.traps.pass_by(HISTORY, f"task:{request.query['task_id']}", worker)
        fault = server.strikes()
        if (refusal := await _refusal(fault)) is not None:
            return refusal
        return await _answer(request, server, fault, self._read(request, name, user))

    async def _serve_jobs(
        self, request: web.Request, server: RecordingServer, name: str, worker: str
    ) -> web.StreamResponse:
        """A call under the internal token."""
        self._calls += request.method != "GET"  # polls go on when all is done
        fault = server.strikes(endpoint_of(name))
        if (refusal := await _refusal(fault)) is not None:
            self._jobs.note_refused(name, worker)
            return refusal
        if name == "capabilities":
            found = _json({"contract_version": "v1", "features": _FEATURES})
        else:
            body = await request.json() if request.can_read_body else {}
            status, content = self._jobs.answer(
                request.method, name, dict(request.query), body, worker
            )
            if (request.method, name, status) == ("POST", "agents", 201):
                self._keep_task(body["user_id"], {"title": content["plan"], "status": "done"})
            found = _json(content, status)
        return await _answer(request, server, fault, found)

    def _beat(self, user: str, worker: str) -> web.Response:
        token = self._jobs.heartbeat_of(user)
        now = time.monotonic()
        self._posts.append(Post("heartbeat", token, user, worker, now, "", "", "stored"))
        return _json({"beat": f"[[{token}]]"})

    def _keep_task(self, user: str, fields: dict[str, Any]) -> dict[str, Any]:
        stored = {**fields, "id": f"task-{len(self._titles) + 1}"}
        self._stored["task", user, ""].append(stored)
        self._titles[user, stored["id"]] = str(fields["title"])
        return stored

    def _read(self, request: web.Request, name: str, user: str) -> web.Response:
        if name == "capabilities":
            return _json({"contract_version": "v1", "features": _FEATURES})
        if request.method != "GET" or name not in _KINDS:
            return _json({"error": "no such endpoint", "code": "not_found"}, 404)
        task_id = "" if name == "tasks" else request.query["task_id"]
        items = self._stored.get((_KINDS[name], user, task_id), [])
        start, limit = int(request.query.get("cursor", "0")), int(request.query.get("limit", "50"))
        page: dict[str, Any] = {"items": items[start : start + limit]}
        if start + limit < len(items):
            page["next_cursor"] = str(start + limit)
        return _json(page)

    async def _create(
        self, request: web.Request, server: RecordingServer, kind: PostKind, user: str, worker: str
    ) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        token = _about(kind, body)
        await server.traps.pass_by(f"{kind}.received", token, worker)
        fault = server.strikes()
        key = str(body.get("idempotency_key") or "")

        def note(outcome: PostOutcome) -> None:
            self._outcomes[f"{kind}.{outcome}"] += 1
            digest = hashlib.sha256(raw).hexdigest()[:16]
            text = str(body.get("content", ""))
            now = time.monotonic()
            thread = self._titles.get((user, str(body.get("task_id", ""))), "")
            what = (now, key, digest, outcome, text, thread)
            self._posts.append(Post(kind, token, user, worker, *what))

        if (refusal := await _refusal(fault)) is not None:
            note("refused")
            return refusal
        # From here to the storing nothing is awaited: a caller's end cannot come in between.
        status, content = self._store(kind, user, key, raw, body, note)
        await server.traps.pass_by(f"{kind}.stored", token, worker)
        answer = web.Response(body=content, status=status, content_type="application/json")
        sent = await _answer(request, server, fault, answer)
        await server.traps.pass_by(f"{kind}.answered", token, worker)
        return sent

    def _store(
        self,
        kind: PostKind,
        user: str,
        key: str,
        raw: bytes,
        body: dict[str, Any],
        note: Any,
    ) -> tuple[int, bytes]:
        known = self._known.get((user, f"{kind}:{key}")) if key else None
        digest = hashlib.sha256(raw).hexdigest()
        if known is not None:
            if known[0] == digest:
                note("replayed")
                return 200, known[1]
            note("conflict")
            return 409, b'{"error": "the key was used before", "code": "idempotency_conflict"}'
        task_id = "" if kind == "task" else str(body["task_id"])
        if task_id and (user, task_id) not in self._titles:
            note("refused")
            return 404, b'{"error": "no such task", "code": "not_found"}'
        fields = {name: value for name, value in body.items() if name != "idempotency_key"}
        if kind == "task":
            stored = self._keep_task(user, fields)
        else:
            stored = {**fields, "id": f"{kind}-{len(self._posts) + 1}"}
            self._stored[kind, user, task_id].append(stored)
        content = json.dumps(stored).encode()
        if key:
            self._known[user, f"{kind}:{key}"] = (digest, content)
        note("stored")
        return 201, content

    def counts(self) -> dict[str, Any]:
        """Calls so far (polls are none), posts by outcome, and what is to be acknowledged."""
        return {
            "calls": self._calls,
            "outcomes": dict(self._outcomes),
            "undelivered": self._jobs.undelivered,
        }

    def records(self) -> dict[str, Any]:
        """All create requests and acknowledgements."""
        return {
            "posts": [asdict(post) for post in self._posts],
            "acks": [asdict(ack) for ack in self._jobs.acks],
        }


async def _refusal(fault: Fault) -> web.Response | None:
    """The answer of a fault that does nothing of what was asked; waits for a slow one."""
    if fault.kind == "error":
        return _json({"error": "a fault"}, 500)
    if fault.kind == "rate_limit":
        headers = {"Retry-After": f"{fault.seconds:g}"}
        return web.json_response({"error": "too many"}, status=429, headers=headers)
    if fault.kind == "slow":
        await asyncio.sleep(fault.seconds)
    return None


async def _answer(
    request: web.Request, server: RecordingServer, fault: Fault, answer: web.Response
) -> web.StreamResponse:
    """Send the answer, whole or as the fault wants it."""
    if fault.kind == "stored_error":
        answer = _json({"error": "a fault"}, 500)
    if fault.kind in {"reset", "half"}:
        body = answer.body
        assert isinstance(body, bytes)
        return await server.break_off(
            request, body, "application/json", reset=fault.kind == "reset"
        )
    await answer.prepare(request)
    await answer.write_eof()
    return answer


def _about(kind: PostKind, body: dict[str, Any]) -> str:
    """The token that a body is about; for a task, its title."""
    if kind == "task":
        return str(body["title"])
    return find_token(f"{body.get('title', '')} {body['content']}") or ""


def _user(request: web.Request) -> str | None:
    """The user in the agent token, whose signature is taken on trust."""
    parts = request.headers.get("X-Agent-Token", "").split(".")
    if len(parts) != 3:
        return None
    claims = parts[1]
    found = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
    return str(found["user_id"])


def _json(value: object, status: int = 200) -> web.Response:
    body = json.dumps(value).encode()
    return web.Response(body=body, status=status, content_type="application/json")


if __name__ == "__main__":
    serve(RecordingBackend())
