"""A turn over the real reference backend, in this process, and a scripted model."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest
import stamina

from clasper_worker.devkit.reference_backend.app import create_app
from clasper_worker.devkit.reference_backend.config import BackendConfig
from clasper_worker.llm.messages import ModelReply
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.client import AgentBackend, MissionControl
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.prompt.workspace.workspace import Workspace
from clasper_worker.testing import ScriptedModel
from clasper_worker.tools.mission_control_tools import MISSION_CONTROL_TOOLS
from clasper_worker.tools.registry import Toolbox
from clasper_worker.turn.context import TurnDependencies, TurnSettings
from clasper_worker.turn.journal_store import MemoryLedger
from clasper_worker.turn.models import TurnIdentity, TurnResult
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TurnRun

SECRET = "a-secret-of-at-least-32-characters"
NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)


@asynccontextmanager
async def no_lock(_: str) -> AsyncIterator[None]:
    yield


class RecordingTransport(httpx2.AsyncBaseTransport):
    """Passes requests on to the backend; may answer some itself first."""

    def __init__(self, backend: httpx2.AsyncBaseTransport) -> None:
        self._backend = backend
        self.requests: list[httpx2.Request] = []
        self.answers: dict[tuple[str, str], list[httpx2.Response]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        queued = self.answers.get((request.method, request.url.path.rsplit("/", 1)[-1]))
        if queued:
            return queued.pop(0)
        return await self._backend.handle_async_request(request)

    def paths(self, method: str) -> list[str]:
        return [
            request.url.path.rsplit("/", 1)[-1]
            for request in self.requests
            if request.method == method
        ]


@dataclass
class TurnHarness:
    deps: TurnDependencies
    http: RecordingTransport

    def backend(self, user_id: str = "u1") -> AgentBackend:
        return self.deps.mission_control.as_agent(AgentIdentity(user_id, "reader"))

    async def run(
        self,
        *replies: ModelReply | Exception,
        turn_id: str = "turn-1",
        settings: dict[str, Any] | None = None,
        **request: Any,
    ) -> tuple[TurnResult, ScriptedModel]:
        model = ScriptedModel(replies)
        fields = {"user_id": "u1", "message": "Hello", "task_title": "Thread", **request}
        fields = {name: value for name, value in fields.items() if value is not None}
        deps = replace(
            self.deps,
            model=lambda _: model,
            settings=replace(self.deps.settings, **(settings or {})),
        )
        turn = TurnIdentity(turn_id, turn_id, "0" * 32)
        return await TurnRun(parse_send_request(fields), turn, deps).run(), model

    async def messages(self, task_id: str, user_id: str = "u1") -> list[str]:
        return [item.content async for item in self.backend(user_id).messages(task_id)]

    async def titles(self, user_id: str = "u1") -> list[str]:
        return [task.title async for task in self.backend(user_id).tasks()]


@pytest.fixture
def workspace_path(tmp_path: Path) -> Path:
    path = tmp_path / "workspace"
    path.mkdir()
    (path / "AGENTS.md").write_text("# Rules\nBe helpful.")
    (path / "SOUL.md").write_text("# Soul\nYou are kind.")
    return path


@pytest.fixture
async def harness(workspace_path: Path) -> AsyncIterator[TurnHarness]:
    app = create_app(BackendConfig(SECRET, internal_api_token="internal"))
    http = RecordingTransport(httpx2.ASGITransport(app))
    client = httpx2.AsyncClient(base_url="http://backend.test", transport=http)
    mission_control = MissionControl(
        BackendTransport(client, attempts=2, max_wait_seconds=0.001), AgentTokens(SECRET)
    )
    with Workspace.open(workspace_path) as workspace, stamina.set_testing(testing=True, attempts=2):
        deps = TurnDependencies(
            mission_control=mission_control,
            ledger=MemoryLedger(),
            tasks=TaskFinder(no_lock),
            toolbox=Toolbox(MISSION_CONTROL_TOOLS),
            workspace=lambda *_: workspace.current(),
            model=lambda _: ScriptedModel([]),
            now=lambda: NOW,
            settings=TurnSettings(),
        )
        yield TurnHarness(deps, http)
    await client.aclose()
