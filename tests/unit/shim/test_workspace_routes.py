"""What the shim tells of workspaces, and its compaction, over real files and a fake Redis."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import fakeredis
import httpx2
import pytest

from clasper_worker.client import ClasperClient
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.shim.app import create_app
from clasper_worker.shim.boot import BootRecord
from clasper_worker.shim.results import JobRegister
from clasper_worker.shim.schemas import ContextStats
from clasper_worker.shim.services import ShimServices, ShimWorkspaces
from clasper_worker.streams.reader import StreamReader
from clasper_worker.streams.results import JobResults
from clasper_worker.turn.request import RequestLimits

FILES = {
    "AGENTS.md": "rules",
    "SOUL.md": "common",
    "souls/writer.md": "writer soul",
    "BOOT.md": "Greet everybody.",
    "MEMORY.md": "m" * 25_000,
    "skills/tea/SKILL.md": "---\nname: tea\ndescription: Makes tea.\nemoji: T\n---\nBoil.",
    "skills/gated/SKILL.md": "---\nname: gated\ndescription: G.\nos: [amiga]\n---\nx",
    "skills/bad/SKILL.md": "---\nmetadata: {oops\n---\n",
}


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture
async def shim(
    tmp_path: Path, settings_of: Callable[..., Settings]
) -> AsyncIterator[httpx2.AsyncClient]:
    settings = settings_of(
        celery_broker_url="memory://",
        celery_result_backend="cache+memory://",
        clasper_workspace=write(tmp_path / "main", FILES),
        clasper_workspaces={"acme": write(tmp_path / "acme", {"SOUL.md": "acme"})},
        agent_daemon_api_key="key",
    )
    redis = fakeredis.FakeAsyncRedis()
    client = ClasperClient.from_settings(settings)
    results = JobResults(client.app, settings.result_backend_url)
    services = ShimServices(
        settings,
        client,
        results,
        JobRegister(redis, ttl_seconds=60),
        RequestLimits.from_settings(settings),
        Canceller(client.app, None, QUEUES),
        ShimWorkspaces(settings),
        BootRecord(redis),
        StreamReader(redis, results),
    )
    transport = httpx2.ASGITransport(create_app(settings, services), raise_app_exceptions=False)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://127.0.0.1:8081", headers={"X-Daemon-Key": "key"}
    ) as made:
        yield made
    services.workspaces.close()


async def test_skills_are_listed_with_the_reason_why_one_is_off(shim: httpx2.AsyncClient) -> None:
    body = (await shim.get("/skills")).json()
    assert (body["enabled"], body["total"]) == (1, 2)
    gated, tea = body["skills"]
    assert (tea["name"], tea["description"], tea["enabled"]) == ("tea", "Makes tea.", True)
    assert tea["metadata"]["emoji"] == "T"
    assert "reason" not in tea
    assert gated["enabled"] is False
    assert "amiga" in gated["reason"]
    assert [(item["file"], item["line"]) for item in body["warnings"]] == [
        ("skills/bad/SKILL.md", 3)
    ]


async def test_the_context_says_what_of_each_file_a_role_is_told(shim: httpx2.AsyncClient) -> None:
    body = (await shim.get("/context", params={"role": "writer"})).json()
    files = {item["name"]: item for item in body["files"]}
    assert files["souls/writer.md"] == {
        "name": "souls/writer.md",
        "exists": True,
        "rawChars": 11,
        "injectedChars": 11,
        "truncated": False,
        "estimatedTokens": 3,
    }
    assert files["SOUL.md"]["injectedChars"] == 0
    assert files["BOOT.md"]["injectedChars"] == 0
    assert files["USER.md"]["exists"] is False
    memory = files["MEMORY.md"]
    assert (memory["rawChars"], memory["injectedChars"], memory["truncated"]) == (
        *(25_000, 20_000),
        True,
    )
    assert body["maxCharsPerFile"] == 20_000
    assert body["totalBootstrapChars"] == 5 + 11 + 20_000
    assert body["systemPromptChars"] > body["totalBootstrapChars"]
    assert body["estimatedSystemPromptTokens"] == -(-body["systemPromptChars"] // 4)
    assert body["workspacePath"].endswith("main")


@pytest.mark.parametrize(
    ("query", "field"),
    [({"role": "../x"}, "role"), ({"workspace": "nope"}, "metadata.workspace")],
)
async def test_a_bad_role_or_workspace_is_refused_by_name(
    query: dict[str, str], field: str, shim: httpx2.AsyncClient
) -> None:
    answer = await shim.get("/context", params=query)
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == field


async def test_a_boot_is_complete_once_it_was_said_to_be_and_for_that_workspace_alone(
    shim: httpx2.AsyncClient,
) -> None:
    before = (await shim.get("/boot")).json()
    assert before == {"hasBoot": True, "isComplete": False, "content": "Greet everybody."}
    assert (await shim.post("/boot/complete")).json() == {"status": "ok"}
    assert (await shim.get("/boot")).json()["isComplete"] is True
    other = (await shim.get("/boot", params={"workspace": "acme"})).json()
    assert other == {"hasBoot": False, "isComplete": False, "content": None}


@pytest.mark.parametrize("path", ["/skills", "/context", "/boot"])
async def test_a_key_is_wanted(path: str, shim: httpx2.AsyncClient) -> None:
    assert (await shim.get(path, headers={"X-Daemon-Key": "wrong"})).status_code == 401


async def test_a_missing_workspace_is_a_clear_error(
    shim: httpx2.AsyncClient, tmp_path: Path
) -> None:
    (tmp_path / "main").rename(tmp_path / "gone")
    answer = await shim.get("/skills")
    assert (answer.status_code, answer.json()["code"]) == (500, "workspace")


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "messages"), ({"messages": [], "keep_recent": "many"}, "keep_recent")],
)
async def test_a_bad_compact_request_is_refused_before_it_is_enqueued(
    body: Any, field: str, shim: httpx2.AsyncClient
) -> None:
    answer = await shim.post("/compact", json=body)
    assert answer.status_code == 400
    assert answer.json()["details"]["fields"][0]["field"] == field


async def test_what_turns_choose_from_is_told_and_read_anew_on_request(
    shim: httpx2.AsyncClient, tmp_path: Path
) -> None:
    before = (await shim.get("/context/stats")).json()
    assert ContextStats.model_validate(before).indexedSkills == 1
    assert before["indexedChunks"] == before["indexedSkills"] + before["indexedMemoryChunks"]
    assert (await shim.get("/context/stats")).json() == before  # is not indexed for each question
    write(tmp_path / "main", {"skills/milk/SKILL.md": "---\nname: milk\ndescription: M.\n---\nM."})
    after = (await shim.post("/workspace/reindex")).json()
    assert after["indexedSkills"] == 2
    assert after["lastIndexedAt"] > before["lastIndexedAt"]
    named = (await shim.post("/workspace/reindex", params={"workspace": "acme"})).json()
    assert named["indexedChunks"] == 0
    assert (await shim.post("/workspace/reindex?workspace=no")).status_code == 400
