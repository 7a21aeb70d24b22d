"""Turns, or their HTTP calls alone, without Celery: ``python direct.py HOW CONCURRENCY``.

HOW is ``direct``, ``bare_http`` (the calls by the worker's HTTP client) or ``bare_aiohttp`` (by
aiohttp, on which that client stands: what they cost at least).

Reads batches from standard input, a JSON list of the turns' tokens a line; answers each with what
it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import httpx2
import uvloop
from openai import DefaultAioHttpClient
from turns import MARK_END, MARK_START, ROLE, TITLE, Turn, reply_to

from clasper_worker.config.settings import Settings, load_settings
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.runtime import Runtime
from clasper_worker.turn.models import identify_turn
from clasper_worker.turn.request import RequestLimits, parse_send_request
from clasper_worker.turn.run import TurnRun

Carry = Callable[[Turn], Awaitable[object]]
Send = Callable[[str, str, Mapping[str, str], bytes], Awaitable[None]]
Closers = list[Callable[[], Awaitable[object]]]


async def _turns_directly(settings: Settings, closers: Closers) -> Carry:
    """The same turn that the Celery task carries out."""
    runtime = await Runtime.open(settings)
    closers.append(runtime.close)
    limits = RequestLimits.from_settings(settings)

    async def carry(turn: Turn) -> object:
        request = parse_send_request(turn.request(), limits)
        identity = identify_turn(request.user_id, None, str(uuid.uuid4()))
        return (await TurnRun(request, identity, runtime.turns).run()).as_json()

    return carry


async def _bare_httpx2(settings: Settings, closers: Closers) -> Carry:
    """The three calls by the worker's HTTP client."""
    client = DefaultAioHttpClient(limits=httpx2.Limits(max_connections=0))
    closers.append(client.aclose)

    async def send(method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        response = await client.request(method, url, headers=headers, content=body or None)
        json.loads(response.raise_for_status().content)

    return await _bare_calls(settings, send)


async def _bare_aiohttp(settings: Settings, closers: Closers) -> Carry:
    """The three calls by aiohttp alone."""
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), cookie_jar=aiohttp.DummyCookieJar()
    )
    closers.append(session.close)

    async def send(method: str, url: str, headers: Mapping[str, str], body: bytes) -> None:
        async with session.request(method, url, headers=headers, data=body or None) as response:
            response.raise_for_status()
            json.loads(await response.read())

    return await _bare_calls(settings, send)


async def _bare_calls(settings: Settings, send: Send) -> Carry:
    """The calls of a turn, with bodies as large, one after the other."""
    model, backend = settings.openai_base_url, f"{settings.backend_url}/api/mission-control"
    tokens = AgentTokens.from_settings(settings)
    # What the last real turn sent to the model, with this turn's own token.
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"{(model or '').removesuffix('/v1')}/bench/last") as response,
    ):
        captured = await response.read()
    at = captured.rfind(MARK_START)
    before, after = captured[:at], captured[captured.find(MARK_END, at) + len(MARK_END) :]

    async def carry(turn: Turn) -> None:
        headers = {"X-Agent-Token": tokens.token_for(AgentIdentity(turn.user_id, ROLE))}
        await send("GET", f"{backend}/tasks?limit=50", headers, b"")
        headers["Content-Type"] = "application/json"
        prompt = before + turn.token.encode() + after
        await send("POST", f"{model}/chat/completions", headers, prompt)
        message = {
            "task_id": f"task-{turn.user_id}-{TITLE}",
            "content": reply_to(turn.token),
            "actor_type": "agent",
            "agent_role": ROLE,
            "idempotency_key": turn.token,
        }
        await send("POST", f"{backend}/messages", headers, json.dumps(message).encode())

    return carry


async def _batch(carry: Carry, tokens: list[str], concurrency: int) -> dict[str, float]:
    waiting = iter(enumerate(tokens))

    async def carry_on() -> None:
        for number, token in waiting:
            await carry(Turn(number, token))

    began, cpu = time.monotonic(), time.process_time()
    await asyncio.gather(*(carry_on() for _ in range(concurrency)))
    return {"seconds": time.monotonic() - began, "cpu": time.process_time() - cpu}


async def main(how: str, concurrency: int) -> None:
    """Answer batches until the input ends."""
    make = {
        "direct": _turns_directly,
        "bare_http": _bare_httpx2,
        "bare_aiohttp": _bare_aiohttp,
    }[how]
    closers: Closers = []
    carry = await make(load_settings(), closers)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _batch(carry, json.loads(line), concurrency)), flush=True)
    for close in closers:
        await close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
