"""The reference backend, broken in one way at a time, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

import jwt
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from clasper_worker.conformance.target import Target
from clasper_worker.devkit.reference_backend import BackendConfig, create_app

SECRET = "a-secret-of-the-tests-with-more-than-32-bytes"
INTERNAL = "an-internal-token"
BASE = "/api/mission-control"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.body)
        except ValueError:
            return {}

    @property
    def is_create(self) -> bool:
        return self.method == "POST"

    @property
    def claims(self) -> dict[str, Any]:
        try:
            token = self.headers.get("x-agent-token", "")
            return jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return {}

    def on(self, method: str, *endings: str) -> bool:
        return self.method == method and self.path.endswith(endings)

    def having(self, **changes: Any) -> Request:
        """The same with fields of its JSON changed; None takes one out."""
        body = {k: v for k, v in {**self.json, **changes}.items() if v is not None}
        return replace(self, body=json.dumps(body).encode())

    def by(self, user: str | None = None) -> Request:
        """The same with a good token, of another user where one is given."""
        claims = {"type": "agent", "agent_role": "x", "exp": time.time() + 60}
        token = jwt.encode({**claims, "user_id": user or "somebody"}, SECRET)
        return replace(self, headers={**self.headers, "x-agent-token": token})

    def inside(self) -> Request:
        return replace(self, headers={**self.headers, "x-internal-token": INTERNAL})


@dataclass(frozen=True)
class Response:
    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def having(self, **changes: Any) -> Response:
        body = {k: v for k, v in {**self.json, **changes}.items() if v is not None}
        return replace(self, body=json.dumps(body).encode())


Inner = Callable[[Request], Awaitable[Response]]
Breakage = Callable[[Request, Inner], Awaitable[Response]]


class Broken:
    """ASGI middleware; `breakage` may be changed between runs, None is the whole backend."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.breakage: Breakage | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self.breakage is None:
            await self.app(scope, receive, send)
            return
        body = b""
        more = True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        query = dict(parse_qsl(scope["query_string"].decode()))
        request = Request(scope["method"], scope["path"], query, headers, body)
        streamed = False

        async def inner(asked: Request) -> Response:
            nonlocal streamed
            streamed = asked.path.endswith("/events")
            return await self._ask(scope, receive, asked, send if streamed else None)

        answer = await self.breakage(request, inner)
        if not (streamed and answer.status == 0):
            await send(
                {
                    "type": "http.response.start",
                    "status": answer.status,
                    "headers": [(b"content-type", b"application/json")],
                }
            )
            await send({"type": "http.response.body", "body": answer.body})

    async def _ask(
        self, scope: Scope, receive: Receive, asked: Request, through: Send | None
    ) -> Response:
        given, status, parts = False, 0, []

        async def once() -> Any:
            nonlocal given
            if given:
                return await receive()
            given = True
            return {"type": "http.request", "body": asked.body}

        async def keep(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        headers = {**asked.headers, "content-length": str(len(asked.body))}
        inner = {
            **scope,
            "method": asked.method,
            "path": asked.path,
            "raw_path": asked.path.encode(),
            "query_string": urlencode(asked.query).encode(),
            "headers": [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()],
        }
        await self.app(inner, once, through or keep)
        return Response(status, b"".join(parts))


@contextmanager
def serving() -> Iterator[tuple[Broken, Target]]:
    """A backend of its own, in memory, and how to reach it."""
    app = Broken(create_app(BackendConfig(agent_jwt_secret=SECRET, internal_api_token=INTERNAL)))
    server = uvicorn.Server(
        uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    )
    sockets = [server.config.bind_socket()]
    thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
    thread.start()
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    try:
        yield app, Target(url, secret=SECRET, internal_token=INTERNAL)
    finally:
        server.should_exit = True
        thread.join()


BREAKAGES: dict[str, Breakage] = {}
"""By the name of the check that has to find it; what follows a space tells several apart."""


def breaks(name: str) -> Callable[[Breakage], Breakage]:
    def register(breakage: Breakage) -> Breakage:
        assert name not in BREAKAGES
        BREAKAGES[name] = breakage
        return breakage

    return register


def answers(name: str, method: str, ending: str, **changes: Any) -> None:
    """A backend whose successes there have other fields."""

    async def breakage(request: Request, inner: Inner) -> Response:
        answer = await inner(request)
        hit = request.on(method, ending) and answer.status == 200
        return answer.having(**changes) if hit else answer

    breaks(name)(breakage)


def sends(name: str, method: str, ending: str, change: Callable[[Request], Request]) -> None:
    """A backend that understands another request there."""

    async def breakage(request: Request, inner: Inner) -> Response:
        return await inner(change(request) if request.on(method, ending) else request)

    breaks(name)(breakage)


def turns(name: str, before: int, after: int, body: bytes | None = None) -> None:
    """A backend with another status for each error of one kind."""

    async def breakage(request: Request, inner: Inner) -> Response:
        answer = await inner(request)
        if answer.status != before:
            return answer
        return Response(after, answer.body if body is None else body)

    breaks(name)(breakage)


def accepts(name: str, is_it: Callable[[Request], bool]) -> None:
    """A backend that takes a bad token for a good one."""

    async def breakage(request: Request, inner: Inner) -> Response:
        return await inner(request.by() if is_it(request) else request)

    breaks(name)(breakage)


def _signed(request: Request) -> bool:
    try:
        jwt.decode(
            request.headers["x-agent-token"], SECRET, ["HS256"], options={"verify_exp": False}
        )
    except (jwt.PyJWTError, KeyError):
        return False
    return True


def _algorithm(request: Request) -> str | None:
    try:
        return str(jwt.get_unverified_header(request.headers["x-agent-token"])["alg"])
    except (jwt.PyJWTError, KeyError):
        return None


answers("capabilities.version", "GET", "/capabilities", contract_version="v9")
answers("capabilities.features", "GET", "/capabilities", features={"tasks": "yes"})
answers("capabilities.required", "GET", "/capabilities", features={"tasks": False})
turns("auth.accepted", 200, 401)
accepts("auth.missing", lambda r: "x-agent-token" not in r.headers)
accepts("auth.missing_write", lambda r: r.is_create and "x-agent-token" not in r.headers)
turns("auth.garbage", 401, 500)
for _name in ("missing", "garbage", "wrong_secret", "expired", "alg_none", "type", "no_user"):
    turns(f"auth.{_name} everybody", 200, 401)
accepts("auth.wrong_secret", lambda r: _algorithm(r) == "HS256" and not _signed(r))
accepts("auth.expired", lambda r: r.claims.get("exp", 0) < time.time() and _signed(r))
accepts("auth.alg_none", lambda r: _algorithm(r) == "none")
accepts("auth.type", lambda r: r.claims.get("type") == "user")
accepts("auth.type none", lambda r: _signed(r) and "type" not in r.claims)
accepts("auth.no_user", lambda r: _signed(r) and "user_id" not in r.claims)
answers("tasks.create", "POST", "/tasks", title="another")
answers("tasks.create id", "POST", "/tasks", id=7)
answers("tasks.list", "GET", "/tasks", items=[], next_cursor=None)
answers("messages.create", "POST", "/messages", task_id=None)
answers("documents.create", "POST", "/documents", doc_type=None)
sends("content.layout", "POST", "/messages", lambda r: r.having(content=r.json["content"].strip()))
sends("content.large", "POST", "/messages", lambda r: r.having(content=r.json["content"][:65_535]))
sends(
    "content.unicode",
    "POST",
    "/messages",
    lambda r: r.having(content="".join(c for c in r.json["content"] if ord(c) < 0x10000)),
)
sends(
    "content.unicode_title",
    "POST",
    "/tasks",
    lambda r: r.having(
        title=str(r.json.get("title")).encode("latin-1", "replace").decode("latin-1")
    ),
)
sends("history.order filter", "GET", "/messages", lambda r: replace(r, query={}))
sends("idempotency.task_repeat", "POST", "/tasks", lambda r: r.having(idempotency_key=None))
sends("idempotency.message_repeat", "POST", "/messages", lambda r: r.having(idempotency_key=None))
sends("idempotency.document_repeat", "POST", "/documents", lambda r: r.having(idempotency_key=None))
sends("idempotency.one_effect", "POST", "/tasks", lambda r: r.having(idempotency_key=None))
sends(
    "idempotency.without_key",
    "POST",
    "/tasks",
    lambda r: r.having(idempotency_key=r.json.get("idempotency_key") or str(r.json.get("title"))),
)
sends("pagination.limit", "GET", "/tasks", lambda r: replace(r, query={**r.query, "limit": "50"}))
sends("pagination.growing", "GET", "/tasks", lambda r: replace(r, query={"limit": "3"}))
sends("pagination.doubles cursor", "GET", "/tasks", lambda r: replace(r, query={"limit": "3"}))
answers("pagination.end", "GET", "/tasks", next_cursor="more")
answers("pagination.gaps", "GET", "/tasks", next_cursor=None)
sends(
    "pagination.messages", "GET", "/messages", lambda r: replace(r, query={**r.query, "cursor": ""})
)
turns("errors.body", 400, 400, b'{"detail": "bad"}')
turns("errors.auth_body", 401, 401, b"")
turns("errors.not_found_body", 404, 404, b"<h1>Not Found</h1>")
for _name in (
    "missing_title",
    "missing_content",
    "missing_document_title",
    "wrong_type",
    "malformed",
):
    turns(f"errors.{_name}", 400, 500)
turns("errors.unknown_task", 404, 400)
turns("errors.unknown_task_document", 404, 500)
answers("dispatch.shape", "GET", "/undelivered", deliveries=[])
answers("notifications.list", "GET", "/notifications", items=None)
answers("notifications.list tenant", "GET", "/notifications", items=[{"id": "n", "user_id": "x"}])
answers("tools.list", "GET", "/tools", tools=[{"name": "x"}])
turns("tools.unknown", 404, 200, b"{}")
accepts("tools.auth", lambda r: r.path == "/api/tools" and "x-agent-token" not in r.headers)
answers("approvals.ask", "POST", "/tool-requests", status="approved")
sends("approvals.ask filter", "GET", "/tool-requests", lambda r: replace(r, query={}))
accepts("events.auth", lambda r: r.path.endswith("/events") and "x-agent-token" not in r.headers)
sends("dispatch.auth", "GET", "/undelivered", Request.inside)
sends("dispatch.deliver_auth", "POST", "/deliver", Request.inside)
sends("agents.auth", "GET", "/agents", Request.inside)
sends("dispatch.limit", "GET", "/undelivered", lambda r: replace(r, query={}))
answers("agents.list", "GET", "/agents", items=[{"user_id": 1}])


def _own(request: Request) -> Request:
    return request.by(request.json["user_id"]) if "user_id" in request.json else request


sends("isolation.heartbeat", "POST", "/heartbeat", _own)
sends("isolation.standup", "POST", "/standup", _own)
sends("isolation.body", "POST", "/tasks", _own)


def everybody(name: str) -> None:
    """A backend that has one tenant for all, at one endpoint."""

    async def breakage(request: Request, inner: Inner) -> Response:
        shared = _signed(request)
        return await inner(request.by(f"everybody-{name}") if shared else request)

    breaks(name)(breakage)


everybody("isolation.list")
everybody("isolation.message")
everybody("isolation.document")
everybody("isolation.messages")
everybody("isolation.documents")
everybody("isolation.cursor")
everybody("idempotency.per_tenant")
everybody("approvals.isolation")


def _conflict(name: str) -> None:
    seen: dict[str, Response] = {}

    async def breakage(request: Request, inner: Inner) -> Response:
        key = request.json.get("idempotency_key") if request.is_create else None
        if key in seen:
            return seen[key]
        answer = await inner(request)
        if key:
            seen[key] = answer
        return answer

    breaks(name)(breakage)


for _name in ("task", "message", "document"):
    _conflict(f"idempotency.{_name}_conflict")


def _race(name: str) -> None:
    done: dict[str, Response] = {}

    async def breakage(request: Request, inner: Inner) -> Response:
        key = request.json.get("idempotency_key") if request.is_create else None
        if key is None:
            return await inner(request)
        if key not in done:  # looks first and writes later: what most backends do
            await asyncio.sleep(1)
            done[key] = await inner(request.having(idempotency_key=uuid.uuid4().hex))
        return done[key]

    breaks(name)(breakage)


_race("idempotency.task_together")
_race("idempotency.message_together")


def _nothing(name: str, ending: str, status: int, body: bytes) -> None:
    async def breakage(request: Request, inner: Inner) -> Response:
        return Response(status, body) if request.path.endswith(ending) else await inner(request)

    breaks(name)(breakage)


_nothing("dispatch.acknowledge", "/deliver", 200, b"{}")
_nothing("heartbeat.record", "/heartbeat", 200, b"ok")
_nothing("standup.post", "/standup", 500, b"{}")
_nothing("tools.run", "/count_tasks_by_status", 500, b"{}")
_nothing("events.stream", "/events", 200, b"{}")
_nothing("dispatch.acknowledge never", "/undelivered", 200, b'{"deliveries": []}')
_nothing("dispatch.auth absent", "/undelivered", 404, b'{"error": "none"}')


def _fails(name: str, is_it: Callable[[Request], bool]) -> None:
    async def breakage(request: Request, inner: Inner) -> Response:
        failed = Response(500, b'{"error": "x"}')
        return failed if is_it(request) else await inner(request)

    breaks(name)(breakage)


_fails("isolation.body error", lambda r: r.on("POST", "/tasks") and "user_id" in r.json)
_fails("isolation.cursor error", lambda r: r.on("GET", "/tasks") and "cursor" in r.query)


@breaks("dispatch.acknowledge_again")
async def _gone(request: Request, inner: Inner) -> Response:
    answer = await inner(request)
    again = answer.status == 200 and answer.json.get("already_delivered")
    return Response(404, b'{"error": "gone"}') if again else answer


@breaks("dispatch.acknowledge_other")
async def _anybody(request: Request, inner: Inner) -> Response:
    answer = await inner(request)
    if not request.path.endswith("/deliver") or answer.status != 404:
        return answer
    listed = await inner(
        replace(request.inside(), method="GET", path=f"{BASE}/dispatch/undelivered")
    )
    owner = next(
        one["user_id"]
        for one in listed.json["deliveries"]
        if one["notification_id"] in request.path
    )
    return await inner(replace(request, query={"user_id": owner}))


@breaks("history.order")
async def _newest_first(request: Request, inner: Inner) -> Response:
    answer = await inner(request)
    return (
        answer.having(items=answer.json["items"][::-1])
        if request.on("GET", "/messages")
        else answer
    )


@breaks("pagination.doubles")
async def _overlap(request: Request, inner: Inner) -> Response:
    answer = await inner(request)
    if request.on("GET", "/tasks") and answer.status == 200 and answer.json["items"]:
        return answer.having(items=[answer.json["items"][0], *answer.json["items"]])
    return answer


@breaks("approvals.decide")
async def _keeps_the_arguments(request: Request, inner: Inner) -> Response:
    return await inner(request.having(arguments=None) if request.method == "PATCH" else request)


@breaks("errors.additive")
async def _strict(request: Request, inner: Inner) -> Response:
    strict = request.is_create and "a_field_of_tomorrow" in request.json
    return Response(400, b'{"error": "unknown field"}') if strict else await inner(request)
