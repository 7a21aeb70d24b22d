"""Standups over the reference backend and a scripted model."""

import asyncio
from dataclasses import replace
from datetime import date
from typing import Any

import httpx2
import pytest

from clasper_worker.errors import ModelRejectedError
from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.notes import Slots
from clasper_worker.periodic.standup import StandupReport, StandupRules, run_standup
from clasper_worker.testing import ScriptedModel, says
from tests.unit.periodic.turns import TurnHarness, harness, workspace_path  # noqa: F401 - fixtures

AGENT = Agent.of({"user_id": "u1", "agent_role": "reader"})


class Standups:
    def __init__(self, turns: TurnHarness, slots: Slots) -> None:
        self.turns = turns
        self.slots = slots

    def without_the_backends_own(self) -> None:
        answer = httpx2.Response(200, json={"features": {"tasks": True}})
        self.turns.http.answers["GET", "capabilities"] = [answer] * 9

    async def run(
        self, *replies: Any, agent: Agent = AGENT, **options: Any
    ) -> tuple[StandupReport, ScriptedModel]:
        model = ScriptedModel(replies)
        deps = replace(self.turns.deps, model=lambda _: model)
        options = {"holder": "h", **options}
        report = await run_standup(agent, deps, self.slots, StandupRules(), **options)
        return report, model

    def documents(self) -> list[bytes]:
        return [
            request.content
            for request in self.turns.http.requests
            if request.method == "POST" and request.url.path.endswith("/documents")
        ]


@pytest.fixture
def standups(harness: TurnHarness, slots: Slots) -> Standups:  # noqa: F811 - a fixture
    return Standups(harness, slots)


async def test_the_backends_own_is_asked_for_once_a_day(standups: Standups) -> None:
    report, model = await standups.run()
    assert (report.status, report.source) == ("created", "backend")
    assert report.document_id
    assert (await standups.run(holder="other"))[0].status == "exists"
    assert standups.turns.http.paths("POST") == ["standup"]
    assert model.requests == []


async def test_the_agent_writes_it_from_the_tasks_where_the_backend_does_not(
    standups: Standups,
) -> None:
    backend = standups.turns.backend()
    await backend.create_task(title="Ship it", idempotency_key="1")
    await backend.create_task(title="Plan it", status="done", idempotency_key="2")
    standups.without_the_backends_own()
    report, model = await standups.run(says("Done: Plan it."))
    assert (report.status, report.source) == ("created", "agent")
    asked = str(model.requests[0].messages[-1].content)
    assert asked.index("Ship it") < asked.index("Plan it")
    assert "2026-03-29" in asked
    (document,) = standups.documents()
    assert b'"doc_type":"standup"' in document
    assert b"Done: Plan it." in document
    assert (await standups.run(holder="other"))[0].status == "exists"


async def test_of_many_at_once_one_writes_it(standups: Standups) -> None:
    runs = await asyncio.gather(*(standups.run(holder=str(number)) for number in range(5)))
    assert sorted(report.status for report, _ in runs) == ["created", *["exists"] * 4]


async def test_one_that_failed_is_made_by_the_next_run(standups: Standups) -> None:
    await standups.turns.backend().create_task(title="Ship it", idempotency_key="1")
    standups.without_the_backends_own()
    with pytest.raises(ModelRejectedError):
        await standups.run(ModelRejectedError("no"))
    report, _ = await standups.run(says("Doing: Ship it."), holder="other")
    assert report.status == "created"


async def test_without_tasks_there_is_nothing_to_write(standups: Standups) -> None:
    standups.without_the_backends_own()
    assert (await standups.run())[0].status == "skipped"
    assert standups.documents() == []


async def test_a_dry_run_shows_the_text_and_posts_nothing(standups: Standups) -> None:
    await standups.turns.backend().create_task(title="Ship it", idempotency_key="1")
    standups.without_the_backends_own()
    report, _ = await standups.run(says("Doing: Ship it."), dry_run=True)
    assert (report.status, report.text) == ("dry_run", "Doing: Ship it.")
    assert standups.documents() == []


async def test_the_day_is_that_of_the_agents_time_zone(standups: Standups) -> None:
    # It is 12:00 UTC of the 29th.
    for zone, day in (("Pacific/Kiritimati", "2026-03-30"), ("UTC", "2026-03-29")):
        report, _ = await standups.run(agent=replace(AGENT, timezone=zone), holder=zone)
        assert report.day.isoformat() == day


async def test_one_that_is_made_late_is_of_the_day_it_was_due_and_does_not_take_the_next_ones(
    standups: Standups,
) -> None:
    await standups.turns.backend().create_task(title="Ship it", idempotency_key="1")
    standups.without_the_backends_own()
    late, _ = await standups.run(says("Late."), day=date(2026, 3, 28), holder="late")
    today, _ = await standups.run(says("In time."), day=date(2026, 3, 29), holder="today")
    assert (late.status, today.status) == ("created", "created")
    assert [b"Standup 2026-03-28" in one for one in standups.documents()] == [True, False]
    assert (await standups.run(holder="other"))[0].status == "exists"
