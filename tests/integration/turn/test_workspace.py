"""Workspaces and compaction with a real worker: what the model was really told."""

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.integration.turn.conftest import answers, free_port
from tests.waiting import until

pytestmark = pytest.mark.integration

SKILL = "---\nname: {0}\ndescription: About {0}.\n---\nHow to do {0}: {1}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workspaces")
    for name in ("main", "acme"):
        (root / name).mkdir()
        (root / name / "AGENTS.md").write_text("Be helpful.")
        (root / name / "SOUL.md").write_text(f"You are the agent of {name}.")
    for skill, how in (("refunds", "money goes back"), ("travel", "take the train")):
        path = root / "main" / "skills" / skill
        path.mkdir(parents=True)
        (path / "SKILL.md").write_text(SKILL.format(skill, how))
    return root


@pytest.fixture(scope="module")
def shim(processes: Any, folder: Path) -> Iterator[httpx2.Client]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    variables = {
        "CLASPER_WORKSPACE": str(folder / "main"),
        "CLASPER_WORKSPACES": f"acme={folder / 'acme'}",
        "CLASPER_SMART_CONTEXT": "true",
        "CLASPER_EMBEDDING_PROVIDER": "openai",
        "CLASPER_DEFAULT_TASK": "Thread",
        "AGENT_DAEMON_API_KEY": "key",
    }
    with (
        processes.worker("workspace-worker", **variables),
        processes.running("shim", "clasper_worker", "serve", "--port", str(port), **variables),
    ):
        until(lambda: answers(f"{url}/health"), "shim", processes.logs["shim"])
        with httpx2.Client(
            base_url=url, headers={"X-Agent-Daemon-Key": "key"}, timeout=150
        ) as client:
            yield client


def told(processes: Any, shim: Any, message: str, **fields: Any) -> list[str]:
    """The contents of what the model was sent for one turn."""
    word = secrets.token_hex(8)
    request = {"user_id": "u1", "message": f"{message} {word}", **fields}
    answer = shim.post("/api/agents/send", params={"wait": "60"}, json=request)
    assert answer.status_code == 200, answer.text
    recorded = processes.http.get(f"{processes.model_url}/requests").json()["requests"]
    bodies = [item["body"] for item in recorded if "messages" in item["body"]]
    return [
        message["content"]
        for body in bodies
        if word in str(body["messages"][-1]["content"])
        for message in body["messages"]
    ]


def test_an_edit_is_told_without_a_restart(processes: Any, shim: Any, folder: Path) -> None:
    assert "agent of main" in told(processes, shim, "Who are you?")[0]
    (folder / "main" / "SOUL.md").write_text("You are the new agent of main.")
    until(
        lambda: "new agent of main" in told(processes, shim, "And who are you now?")[0],
        "the edited soul is told",
    )


def test_the_request_and_the_tenant_choose_the_workspace(processes: Any, shim: Any) -> None:
    asked = told(processes, shim, "Hello", metadata={"workspace": "acme"})
    own = told(processes, shim, "Hello", user_id="acme")
    assert "agent of acme" in asked[0]
    assert "agent of acme" in own[0]
    request = {"user_id": "u1", "message": "Hello", "metadata": {"workspace": "nope"}}
    refused = shim.post("/api/agents/send", params={"wait": "60"}, json=request)
    assert refused.status_code == 400
    assert refused.json()["details"]["fields"][0]["field"] == "metadata.workspace"


def test_the_skill_that_fits_is_told_beside_the_message(processes: Any, shim: Any) -> None:
    system, *_, newest = told(processes, shim, "Please explain how refunds are done here")
    assert "How to do" not in system
    assert "**travel**" in system
    assert "How to do refunds: money goes back" in newest
    assert "How to do travel" not in newest


def test_the_workspace_is_embedded_once_and_kept_in_redis(processes: Any, shim: Any) -> None:
    import redis

    client = redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"])
    told(processes, shim, "Hello")
    until(lambda: len(client.keys("clasper:vector:*")) >= 2, "vectors in Redis")
    client.close()


def test_history_is_compacted_to_a_summary_that_the_next_turn_is_told(
    processes: Any, shim: Any
) -> None:
    word = secrets.token_hex(8)
    messages = [
        {"role": "user", "content": f"The code word is {word}"},
        {"role": "assistant", "content": "Noted."},
        {"role": "user", "content": "What about lunch?"},
        {"role": "assistant", "content": "At noon."},
    ]
    answer = shim.post("/compact", json={"messages": messages})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["status"] == "ok"
    assert (body["original_count"], body["compacted_count"]) == (4, 3)
    assert body["usage"]["total_tokens"] > 0
    summary, *recent = body["compacted_messages"]
    assert recent == messages[2:]
    contents = told(processes, shim, "Go on", messages=body["compacted_messages"])
    assert contents[1:4] == [summary["content"], "What about lunch?", "At noon."]
