"""The backend as agents see it."""

import asyncio

import httpx2
import pytest

from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.errors import BackendUnavailableError
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.client import AgentBackend, MissionControl
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.observability.trace_context import TraceContext, continue_trace
from tests.unit.engine.circuit.simulation import SharedStore, Worker
from tests.unit.engine.circuit.virtual_time import run_virtually
from tests.unit.mission_control.test_transport import transport_answering


def _agent(transport: BackendTransport) -> AgentBackend:
    tokens = AgentTokens("a secret of thirty-two characters")
    return AgentBackend(MissionControl(transport, tokens), AgentIdentity("u1", "writer"))


@pytest.mark.parametrize(("feature", "is_open"), [("optional", False), ("messages", True)])
def test_an_optional_endpoint_that_fails_keeps_no_turns_waiting(
    feature: str, is_open: bool
) -> None:
    async def main() -> bool:
        worker = Worker(SharedStore(), GatePolicy(wait=1))
        agent = _agent(
            transport_answering(lambda _: httpx2.Response(500), attempts=1, gate=worker.gate)
        )
        for _ in range(10):
            for call in (
                (agent.record_heartbeat(), agent.standup("UTC"))
                if feature == "optional"
                else (agent.list_tasks(limit=1, cursor=None),)
            ):
                with pytest.raises(BackendUnavailableError):
                    await call
        found = worker.gate.state.is_open
        await worker.gates.close()
        return found

    assert run_virtually(main()) is is_open


async def test_calls_of_a_traced_turn_carry_its_trace() -> None:
    seen: list[httpx2.Headers] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers)
        return httpx2.Response(200, json={"items": []})

    async def turn() -> None:
        continue_trace("ab" * 16)
        await _agent(transport_answering(answer)).list_tasks(limit=1, cursor=None)

    await asyncio.create_task(turn())
    await _agent(transport_answering(answer)).list_tasks(limit=1, cursor=None)
    trace = TraceContext.read(seen[0]["traceparent"])
    assert trace is not None
    assert trace.trace_id == "ab" * 16
    assert "traceparent" not in seen[1]
