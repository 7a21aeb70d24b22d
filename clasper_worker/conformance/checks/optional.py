"""Heartbeat, standup, events, approvals, tools and agents: where the backend has them."""

import asyncio
from typing import Any

import httpx2

from clasper_worker.conformance.probe import BASE, Probe, require
from clasper_worker.conformance.registry import CheckFailed, CheckSkipped, check

_REQUESTS = f"{BASE}/tool-requests"
_APPROVALS = "a tool that needs a person's consent would never run, or run without it"


@check(
    "heartbeat.record",
    feature="heartbeat",
    wants="POST heartbeat {user_id} gives a JSON object",
    why="the agent is shown what it says",
)
async def heartbeat(probe: Probe) -> None:
    (await probe.post(f"{BASE}/heartbeat", user_id=probe.user)).object()


@check(
    "standup.post",
    feature="standup",
    wants="POST standup {user_id, timezone} gives a JSON object",
    why="the day's standup is made from it",
)
async def standup(probe: Probe) -> None:
    (await probe.post(f"{BASE}/standup", user_id=probe.user, timezone="Europe/Berlin")).object()


@check(
    "events.stream",
    feature="events_sse",
    wants="GET events is text/event-stream, with events of the tenant's own changes only",
    why="what changes would be missed, or shown to others",
)
async def events(probe: Probe) -> None:
    other = probe.other()
    title, theirs = f"own {probe.key()}", f"other {probe.key()}"
    headers = {"X-Agent-Token": probe.token, "Accept": "text/event-stream"}
    text = ""
    try:
        async with probe.client.stream("GET", f"{BASE}/events", headers=headers) as answer:
            kind = answer.headers.get("content-type", "")
            require(
                answer.status_code == 200 and kind.startswith("text/event-stream"),
                f"GET {BASE}/events answered {answer.status_code}, {kind}",
            )
            await other.task(theirs)
            await probe.task(title)
            async with asyncio.timeout(4):
                async for chunk in answer.aiter_text():
                    text += chunk
                    if title in text:
                        break
    except (TimeoutError, httpx2.HTTPError) as exc:
        raise CheckFailed("no event of a task that was made came within 4 s") from exc
    require(theirs not in text, "an event of another tenant's task came")


@check(
    "events.auth",
    feature="events_sse",
    wants="GET events without a token is 401",
    why="anybody could listen to a tenant",
)
async def events_auth(probe: Probe) -> None:
    try:
        async with probe.client.stream("GET", f"{BASE}/events") as answer:
            require(answer.status_code == 401, f"GET {BASE}/events answered {answer.status_code}")
    except httpx2.HTTPError as exc:
        raise CheckFailed(f"GET {BASE}/events: no answer ({type(exc).__name__})") from exc


async def _ask(probe: Probe) -> tuple[str, dict[str, Any]]:
    body = {
        "wait_id": f"wait-{probe.key()}", "turn_id": "conformance", "tool": "conformance",
        "arguments": {"a": 1}, "arguments_hash": "x", "task_id": await probe.task(),
        "agent_role": "conformance", "expires_at": "2100-01-01T00:00:00Z",
        "idempotency_key": probe.key(),
    }  # fmt: skip
    answer = await probe.post(_REQUESTS, **body)
    require(answer.object().get("status") == "pending", f"not pending: {answer.shown}")
    return answer.made(), body


async def _by_wait(probe: Probe, body: dict[str, Any], **params: str) -> list[dict[str, Any]]:
    return (await probe.get(_REQUESTS, wait_id=body["wait_id"], **params)).items()


@check(
    "approvals.ask",
    feature="tool_requests",
    wants="POST tool-requests gives id and status pending; GET ?wait_id= finds just that one",
    why=_APPROVALS,
)
async def ask(probe: Probe) -> None:
    await _ask(probe)
    made, body = await _ask(probe)
    found = [one.get("id") for one in await _by_wait(probe, body)]
    require(found == [made], f"?wait_id= found {found}, not [{made}]")


@check(
    "approvals.decide",
    feature="tool_requests",
    wants="PATCH tool-requests/{id} takes approval with other arguments; GET shows them",
    why=_APPROVALS,
)
async def decide(probe: Probe) -> None:
    made, body = await _ask(probe)
    decision = {"status": "approved", "arguments": {"a": 2}, "by": "conformance"}
    (await probe.call("PATCH", f"{_REQUESTS}/{made}", decision)).has(*range(200, 300))
    found = await _by_wait(probe, body)
    require(
        len(found) == 1
        and (found[0].get("status"), found[0].get("arguments")) == ("approved", {"a": 2}),
        f"then listed as {found}",
    )
    require(not await _by_wait(probe, body, status="pending"), "?status=pending still has it")


@check(
    "approvals.isolation",
    feature="tool_requests",
    wants="another tenant neither sees nor decides a tool request",
    why="a stranger would approve what an agent does",
)
async def isolation(probe: Probe) -> None:
    other = probe.other()
    made, body = await _ask(probe)
    require(not await _by_wait(other, body), "another tenant sees it")
    answer = await other.call("PATCH", f"{_REQUESTS}/{made}", {"status": "approved"})
    answer.has(403, 404)


@check(
    "tools.list",
    feature="tools",
    wants="GET /api/tools gives tools[] of name, description and parameters (JSON Schema object)",
    why="the model is offered them as they stand there",
)
async def tools(probe: Probe) -> None:
    for one in (await probe.get("/api/tools")).items("tools"):
        good = isinstance(one.get("name"), str) and isinstance(one.get("description"), str)
        require(good and isinstance(one.get("parameters"), dict), f"a tool is {one}")


@check(
    "tools.run",
    feature="tools",
    wants="POST /api/tools/{name} runs a tool and gives a JSON object",
    why="the model reads the result",
)
async def run(probe: Probe) -> None:
    for one in (await probe.get("/api/tools")).items("tools"):
        if one.get("effect") == "read" and not one.get("parameters", {}).get("required"):
            (await probe.post(f"/api/tools/{one['name']}", arguments={})).object()
            return
    raise CheckSkipped("no tool with effect `read` and no required argument: none is run blindly")


@check(
    "tools.unknown",
    feature="tools",
    wants="a tool that is not there is 404",
    why="the model has to learn that there is no such tool",
)
async def unknown(probe: Probe) -> None:
    (await probe.post("/api/tools/conformance_no_such_tool", arguments={})).has(404)


@check(
    "tools.auth",
    feature="tools",
    wants="tools without a token are 401",
    why="anybody could act for a tenant",
)
async def tools_auth(probe: Probe) -> None:
    (await probe.call("GET", "/api/tools", token=None)).has(401)


@check(
    "agents.list",
    feature="agents",
    wants="GET agents (internal token) gives items[] of user_id and agent_role",
    why="they get heartbeats and standups",
)
async def agents(probe: Probe) -> None:
    for one in (await probe.call("GET", f"{BASE}/agents", internal=True)).items():
        good = isinstance(one.get("user_id"), str) and isinstance(one.get("agent_role"), str)
        require(good, f"an agent is {one}")


@check(
    "agents.auth",
    feature="agents",
    wants="GET agents without the internal token is 401 (403 with an agent's token)",
    why="an agent would read who all the tenants are",
)
async def agents_auth(probe: Probe) -> None:
    for token in (None, probe.token):
        (await probe.call("GET", f"{BASE}/agents", token=token)).has(401, 403)
