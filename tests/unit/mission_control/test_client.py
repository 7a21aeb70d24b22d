"""The backend as agents see it."""

import httpx2
import pytest

from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.errors import BackendUnavailableError
from clasper_worker.mission_control.client import AgentBackend, MissionControl
from clasper_worker.mission_control.tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.transport import BackendTransport
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
