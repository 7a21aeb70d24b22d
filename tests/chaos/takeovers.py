"""The row of several Beats: the one that leads is killed, and another that knows of none ticks on.

What the clock asks for is known beforehand, from the agents' places within an interval: a heartbeat
for each slot that begins while Beats run, a standup for each agent that comes due meanwhile.
"""

from __future__ import annotations

import itertools
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from clasper_worker.periodic.agents import Agent
from clasper_worker.periodic.fan_out import STANDUP_SPREAD_SECONDS
from tests.chaos.beats import Beat, start_beat
from tests.chaos.notifications import notify, own_sessions
from tests.chaos.recording_jobs import INTERNAL_HEADER
from tests.chaos.records import PostKind, SentTurn, Tick
from tests.chaos.scene import Scene
from tests.chaos.script import token_of
from tests.chaos.workers import wait_until

_INTERVAL_SECONDS = 20.0  # of heartbeats: twice their ticks', so that each comes within its slot
_AGENTS = 24
_ROLE = "keeper"
_STANDUPS_AGO = 300.0  # the middle of the agents that have standups comes due in the row
_EACH_SECONDS = 15.0  # about what a takeover takes
_FIRST_TICKS_RUN_SECONDS = 10.0  # after they were sent
_LEADS_SECONDS = 6.0
_TAKES_OVER_SECONDS = 60.0
_SESSIONS = 10
_NOTIFIED = 10  # before each kill, and after it


@dataclass(frozen=True, slots=True)
class Timed:
    """An agent, and when the clock asks for it; moments in seconds since the epoch.

    Attributes:
        number: in its name and its tokens.
        place: where in each interval its slots begin, from 0 up to 1.
        standup: when it is due.
    """

    number: int
    place: float
    standup: float

    @property
    def user_id(self) -> str:
        """Its tenant, which has no other agents."""
        return f"a{self.number}"

    def asked(self, since: float, until: float) -> Iterator[tuple[str, float]]:
        """The tokens of what comes due between two moments, each with its own."""
        first = math.floor(since / _INTERVAL_SECONDS - self.place) + 1
        for slot in itertools.count(first):
            due = (slot + self.place) * _INTERVAL_SECONDS
            if due >= until:
                break
            yield token_of(f"h{self.number}", slot), due
        if since < self.standup < until:
            yield token_of(f"d{self.number}", 0), self.standup


def choose_agents(standups_at: float, since: float, until: float) -> list[Timed]:
    """Agents of which half, and a few, come due for their standup between two moments."""
    agents = (_agent(number, standups_at) for number in itertools.count())
    anybody = list(itertools.islice(agents, _AGENTS // 2))
    due = (agent for agent in agents if since < agent.standup < until)
    return [*anybody, *itertools.islice(due, _AGENTS // 2)]


def _agent(number: int, standups_at: float) -> Timed:
    place = Agent.of({"user_id": f"a{number}", "agent_role": _ROLE}).place
    return Timed(number, place, standups_at + place * STANDUP_SPREAD_SECONDS)


def take_over(scene: Scene) -> None:
    """Kill the leading Beat again and again while agents and notifications are seen to."""
    now = time.time()
    standups_at = math.floor((now - _STANDUPS_AGO) / 60) * 60
    agents = choose_agents(
        standups_at, now + 2 * _EACH_SECONDS, now + (scene.options.takeovers + 2) * _EACH_SECONDS
    )
    _register(scene, agents)
    scene.settings = {
        "CLASPER_HEARTBEAT_INTERVAL_SEC": f"{_INTERVAL_SECONDS:g}",
        "CLASPER_ACTIVE_HOURS": "00:00-24:00",
        "CLASPER_STANDUP_AT": f"{datetime.fromtimestamp(standups_at, UTC):%H:%M}",
    }
    for _ in range(2):
        scene.start_worker(wait=True)
    beats = [start_beat(scene, "b1"), start_beat(scene, "b2"), start_beat(scene, "b3", stock=True)]
    _wait_for(beats, lambda ticks: {t.schedule for t in ticks} >= {"heartbeats", "standups"})
    since = time.time() + _FIRST_TICKS_RUN_SECONDS
    _kill_leaders(scene, beats)
    _wait_for_replies(scene, agents, since)
    for beat in beats:
        if not beat.process.told_to_end:
            if not beat.process.running:
                scene.crashed.append(f"{beat.process.name} ended by itself")
            beat.process.send(signal.SIGTERM)
            beat.process.wait()
    scene.ticks = [tick for beat in beats for tick in beat.ticks()]
    stock = sum(tick.stock for tick in scene.ticks)
    scene.notes.append(f"{len(scene.ticks)} ticks were sent, {stock} of them by the stock Beat")


def _kill_leaders(scene: Scene, beats: list[Beat]) -> None:
    sessions = own_sessions(scene, _SESSIONS)
    for number in range(scene.options.takeovers):
        time.sleep(scene.random.uniform(_LEADS_SECONDS / 2, _LEADS_SECONDS))
        notify(scene, sessions, _NOTIFIED, first=2 * number * _NOTIFIED)
        leader = max((t for beat in beats for t in beat.ticks() if not t.stock), key=_at).beat
        (killed,) = (beat.process for beat in beats if beat.process.name == leader)
        at = killed.send(signal.SIGKILL)
        killed.wait()
        scene.disturb("kill -9", at, math.inf, beat=leader)
        notify(scene, sessions, _NOTIFIED, first=(2 * number + 1) * _NOTIFIED)
        beats.append(start_beat(scene, f"b{len(beats) + 1}"))
        _wait_for(beats, partial(_any_since, at))
        scene.look_after_workers()


def _any_since(moment: float, ticks: Sequence[Tick]) -> bool:
    return any(tick.at > moment for tick in ticks)


def _wait_for(beats: Sequence[Beat], condition: Callable[[Sequence[Tick]], bool]) -> None:
    """Wait until it holds of what the Beats that can lead have sent."""

    def holds() -> bool:
        return condition([tick for beat in beats if not beat.stock for tick in beat.ticks()])

    if not wait_until(holds, _TAKES_OVER_SECONDS, pause=0.2):
        logs = "\n".join(beat.process.last_lines() for beat in beats)
        raise RuntimeError(f"no Beat has ticked for {_TAKES_OVER_SECONDS:g} s:\n{logs}")


def _wait_for_replies(scene: Scene, agents: Sequence[Timed], since: float) -> None:
    """Note what the clock has asked for until now, and wait until that and the rest is done."""
    until = time.time()
    ahead = until - time.monotonic()
    for agent in agents:
        for token, due in agent.asked(since, until):
            kind: PostKind = "document" if token.startswith("d") else "message"
            turn = SentTurn(token, agent.user_id, (), tool=False, at=due - ahead, reply=kind)
            scene.callers.sent.append(turn)

    def is_done() -> bool:
        stored = {p["token"] for p in scene.backend.records()["posts"] if p["outcome"] == "stored"}
        scene.look_after_workers()
        return stored.issuperset(turn.token for turn in scene.callers.sent) and not scene.pending()

    if not wait_until(is_done, scene.options.patience, pause=0.5):
        scene.notes.append(f"not all was replied to within {scene.options.patience:g} s")


def _register(scene: Scene, agents: Sequence[Timed]) -> None:
    for agent in agents:
        body = {
            "user_id": agent.user_id,
            "agent_role": _ROLE,
            "number": agent.number,
            "interval": _INTERVAL_SECONDS,
            "place": agent.place,
        }
        path = "/w/people/api/mission-control/agents"
        scene.backend.post(path, body, {INTERNAL_HEADER: "people"})


def _at(tick: Tick) -> float:
    return tick.at
