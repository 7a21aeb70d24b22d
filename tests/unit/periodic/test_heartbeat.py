"""Heartbeats over the reference backend and a scripted model."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.heartbeat import (
    HeartbeatReport,
    HeartbeatRules,
    is_quiet,
    run_heartbeat,
)
from clasper_worker.prompt.workspace.workspace import Workspace
from clasper_worker.testing import ScriptedModel, calls, says
from clasper_worker.turn.models import TurnIdentity
from tests.unit.periodic.turns import TurnHarness, harness, workspace_path  # noqa: F401 - fixtures

CHECKLIST = "# Heartbeat\n\n1. Look at the open tasks.\n"
AGENT = Agent.of({"user_id": "u1", "agent_role": "reader"})


class Hearts:
    def __init__(self, turns: TurnHarness, path: Path) -> None:
        self.turns = turns
        self.path = path
        self.tiers: list[str] = []

    async def beat(
        self, *replies: Any, agent: Agent = AGENT, checklist: str | None = CHECKLIST, **options: Any
    ) -> tuple[HeartbeatReport, ScriptedModel]:
        if checklist is not None:
            (self.path / "HEARTBEAT.md").write_text(checklist)
        model = ScriptedModel(replies)

        def tier(name: str) -> ScriptedModel:
            self.tiers.append(name)
            return model

        with Workspace.open(self.path) as workspace:
            deps = replace(self.turns.deps, model=tier, workspace=lambda *_: workspace.current())
            turn = TurnIdentity("turn-1", "turn-1", "0" * 32)
            report = await run_heartbeat(agent, turn, deps, HeartbeatRules(), **options)
        return report, model

    async def posted(self) -> list[str]:
        (task,) = [one async for one in self.turns.backend().tasks() if one.title == "Heartbeat"]
        return await self.turns.messages(task.id)


@pytest.fixture
def hearts(harness: TurnHarness, workspace_path: Path) -> Hearts:  # noqa: F811 - a fixture
    return Hearts(harness, workspace_path)


async def test_that_nothing_needs_attention_is_not_posted(hearts: Hearts) -> None:
    report, _ = await hearts.beat(says("HEARTBEAT_OK"))
    assert report.status == "ok"
    assert await hearts.posted() == []


async def test_anything_else_is_posted(hearts: Hearts) -> None:
    report, _ = await hearts.beat(says("The report is due today."))
    assert report.status == "posted"
    assert await hearts.posted() == ["The report is due today."]


async def test_the_agent_sees_its_tasks_and_notifications_in_a_light_context(
    hearts: Hearts,
) -> None:
    (hearts.path / "USER.md").write_text("The user likes tea.")
    backend = hearts.turns.backend()
    await backend.create_task(title="Water the plants", idempotency_key="1")
    await backend.create_task(title="Old thing", status="done", idempotency_key="2")
    _, model = await hearts.beat(says("HEARTBEAT_OK"))
    (asked,) = model.requests
    system, newest = asked.messages[0].content, asked.messages[-1].content
    assert "tea" not in str(system)
    assert "Be helpful" in str(system)
    assert "Water the plants" in str(newest)
    assert "Old thing" not in str(newest)
    assert "undelivered_notifications" in str(newest)
    assert str(newest).endswith("posted to the user.")
    assert "Look at the open tasks" in str(newest)
    assert asked.tools
    assert set(hearts.tiers) == {"cheap"}


async def test_notifications_are_in_view_where_the_backends_heartbeat_tells_of_none(
    hearts: Hearts,
) -> None:
    def page(first: int, following: str | None) -> httpx2.Response:
        items = [
            {"id": str(n), "content": f"note {n}", **({"read": True} if n < 50 else {})}
            for n in range(first, first + 50)
        ]
        return httpx2.Response(200, json={"items": items, "next_cursor": following})

    answers = hearts.turns.http.answers
    answers["POST", "heartbeat"] = [httpx2.Response(200, json={"status": "ok"})]
    answers["GET", "notifications"] = [page(0, "next"), page(50, None)]
    _, model = await hearts.beat(says("HEARTBEAT_OK"))
    newest = str(model.requests[0].messages[-1].content)
    assert "note 99" in newest
    assert "note 49" not in newest
    assert answers["GET", "notifications"] == []


async def test_a_backend_may_record_a_heartbeat_and_have_nothing_to_show(hearts: Hearts) -> None:
    hearts.turns.http.answers["POST", "heartbeat"] = [httpx2.Response(200, text="OK")]
    report, model = await hearts.beat(says("HEARTBEAT_OK"))
    assert report.status == "ok"
    assert "unread notifications" in str(model.requests[0].messages[-1].content)


async def test_the_agent_can_act(hearts: Hearts) -> None:
    report, _ = await hearts.beat(
        calls(("create_task", {"title": "Follow up"})), says("HEARTBEAT_OK")
    )
    assert (report.status, report.tool_calls) == ("ok", 1)
    assert "Follow up" in await hearts.turns.titles()


@pytest.mark.parametrize(
    ("checklist", "reason"),
    [
        (None, "no_heartbeat_file"),
        (" \n", "empty_heartbeat_file"),
        ("# Heartbeat\n\n- [ ]\n", "empty_heartbeat_file"),
    ],
)
async def test_without_anything_to_check_there_is_no_turn(
    hearts: Hearts, checklist: str | None, reason: str
) -> None:
    report, model = await hearts.beat(checklist=checklist)
    assert (report.status, report.reason) == ("skipped", reason)
    assert model.requests == []
    assert hearts.turns.http.requests == []


async def test_outside_its_active_hours_an_agent_sleeps_unless_it_is_asked(hearts: Hearts) -> None:
    # It is 12:00 UTC.
    tokyo = replace(AGENT, timezone="Asia/Tokyo", active_hours="08:00-20:00")
    assert (await hearts.beat(agent=tokyo))[0].reason == "outside_active_hours"
    report, _ = await hearts.beat(says("HEARTBEAT_OK"), agent=tokyo, any_time=True)
    assert report.status == "ok"
    awake = replace(tokyo, active_hours="08:00-22:00")
    assert (await hearts.beat(says("HEARTBEAT_OK"), agent=awake))[0].status == "ok"


@pytest.mark.parametrize(
    "reply",
    [
        "HEARTBEAT_OK",
        " **HEARTBEAT_OK**\n",
        "`HEARTBEAT_OK`.",
        "HEARTBEAT_OK - all is well.",
        "Nothing to do. HEARTBEAT_OK",
    ],
)
def test_the_signal_may_have_a_short_remainder(reply: str) -> None:
    assert is_quiet(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "All is well.",
        "HEARTBEAT_OK " + "but the report is due. " * 10,
        "The checklist says HEARTBEAT_OK where nothing is due.",
    ],
)
def test_what_has_something_to_say_is_not_quiet(reply: str) -> None:
    assert not is_quiet(reply)
