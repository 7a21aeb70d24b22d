"""What a Beat's log tells, and what the clock asks for."""

import json
import time
from datetime import UTC, datetime

import pytest

from tests.chaos.beats import read_ticks
from tests.chaos.takeovers import Timed, choose_agents

LOG = """\
celery beat v5.7.0 is starting.
{"event": "beat: Starting...", "level": "info", "timestamp": "2026-11-21T09:00:00.100Z"}
{"event": "Scheduler: Sending due task dispatch (clasper.dispatch)", "timestamp": "2026-11-21T09:00:01.250Z"}
{"event": "Something else about a due task", "timestamp": "2026-11-21T09:00:02.000Z"}
{"event": "Scheduler: Sending due task standups (clasper.standups)", "timestamp": "2026-11-21T09:00:03.500Z"}
{"event": "Scheduler: Sending due task heartbeats (clas"""  # noqa: E501 - as logs have it


def test_the_ticks_of_a_log_are_those_that_were_sent() -> None:
    first, second = read_ticks(LOG, "b1", stock=True)
    assert (first.schedule, first.beat, first.stock) == ("dispatch", "b1", True)
    assert second.schedule == "standups"
    assert second.at - first.at == pytest.approx(2.25, abs=0.1)


def test_a_tick_of_now_is_now_on_the_clock_of_records() -> None:
    sent = {
        "event": "Scheduler: Sending due task x (y)",
        "timestamp": datetime.now(UTC).isoformat(),
    }
    (tick,) = read_ticks(json.dumps(sent) + "\n", "b1")
    assert tick.at == pytest.approx(time.monotonic(), abs=60)


def test_an_agent_is_asked_once_for_each_slot_that_begins() -> None:
    agent = Timed(number=3, place=0.5, standup=1000.0)
    assert list(agent.asked(100.0, 150.0)) == [("h3.05", 110.0), ("h3.06", 130.0)]
    assert ("d3.00", 1000.0) in list(agent.asked(990.0, 1001.0))
    assert list(agent.asked(1000.0, 1009.0)) == []


def test_half_of_the_agents_come_due_for_their_standup() -> None:
    agents = choose_agents(0.0, 300.0, 400.0)
    assert len({agent.user_id for agent in agents}) == len(agents)
    due = [agent for agent in agents if 300.0 < agent.standup < 400.0]
    assert len(due) >= len(agents) / 2
