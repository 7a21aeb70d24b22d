"""Turns, or their HTTP calls alone, without Celery: ``python direct.py direct|bare CONCURRENCY``.

Reads batches from standard input, a JSON list of the turns' tokens a line; answers each with what
it took.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable

import uvloop
from openai import DefaultAioHttpClient
from turns import ROLE, TITLE, Turn, reply_to

from clasper_worker.mission_control.tokens import AgentIdentity, AgentTokens
from clasper_worker.runtime import Runtime
from clasper_worker.settings import Settings, load_settings
from clasper_worker.turn.identity import identify_turn
from clasper_worker.turn.request import RequestLimits, parse_send_request
from clasper_worker.turn.run import run_turn

Carry = Callable[[Turn], Awaitable[object]]
Closers = list[Callable[[], Awaitable[object]]]


async def _turns_directly(settings: Settings, closers: Closers) -> Carry:
    """The same turn that the Celery task carries out."""
    runtime = await Runtime.open(settings)
    closers.append(runtime.close)
    limits = RequestLimits.from_settings(settings)

    async def carry(turn: Turn) -> object:
        request = parse_send_request(turn.request(), limits)
        identity = identify_turn(request.user_id, None, str(uuid.uuid4()))
        return (await run_turn(request, identity, runtime.turns)).as_json()

    return carry


async def _bare_calls(settings: Settings, closers: Closers) -> Carry:
    """The three calls of a turn, with bodies as large, by the same HTTP client stack."""
    model = DefaultAioHttpClient(base_url=settings.openai_base_url or "")
    backend = DefaultAioHttpClient(base_url=f"{settings.backend_url}/api/mission-control")
    closers += [model.aclose, backend.aclose]
    root = (settings.openai_base_url or "").removesuffix("/v1")
    captured = (await model.get(f"{root}/bench/last")).content
    at = captured.rfind(b"[[turn:")
    before, after = captured[:at], captured[captured.find(b"]]", at) + 2 :]
    tokens = AgentTokens.from_settings(settings)

    async def carry(turn: Turn) -> object:
        headers = {"X-Agent-Token": tokens.token_for(AgentIdentity(turn.user_id, ROLE))}
        found = await backend.get("/tasks?limit=50", headers=headers)
        body = before + turn.token.encode() + after
        kind = {"Content-Type": "application/json"}
        answer = await model.post("/chat/completions", content=body, headers=kind)
        message = {
            "task_id": f"task-{turn.user_id}-{TITLE}",
            "content": reply_to(turn.token),
            "actor_type": "agent",
            "agent_role": ROLE,
            "idempotency_key": turn.token,
        }
        posted = await backend.post(
            "/messages", content=json.dumps(message), headers={**headers, **kind}
        )
        for response in (found, answer, posted):
            response.raise_for_status()
        return posted

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
    make = {"direct": _turns_directly, "bare": _bare_calls}[how]
    closers: Closers = []
    carry = await make(load_settings(), closers)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _batch(carry, json.loads(line), concurrency)), flush=True)
    for close in closers:
        await close()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
