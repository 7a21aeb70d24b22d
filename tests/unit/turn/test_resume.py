"""A turn that dies anywhere and is run again: nothing is thought, done or posted twice.

The model never gives the same answer twice, so that any answer that was lost, asked for again or
posted in another form shows.
"""

import functools
import json
import re
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from hypothesis import given, settings
from hypothesis import strategies as st

from clasper_worker.devkit.reference_backend.app import create_app
from clasper_worker.devkit.reference_backend.config import BackendConfig
from clasper_worker.devkit.reference_backend.events import Wakeups
from clasper_worker.devkit.reference_backend.store import Store
from clasper_worker.errors import LeaseLostError
from clasper_worker.llm.messages import (
    NO_OPTIONS,
    CallOptions,
    ChatMessage,
    Confirm,
    Listen,
    ModelReply,
    TextPart,
    TokenUsage,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.client import MissionControl
from clasper_worker.mission_control.idempotency import turn_step_key
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.observability.events import TurnEvents, TurnReference
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.tools.mission_control_tools import MISSION_CONTROL_TOOLS
from clasper_worker.tools.registry import Toolbox, ToolContext
from clasper_worker.turn.context import TurnDependencies, TurnSettings
from clasper_worker.turn.journal import made_by
from clasper_worker.turn.journal_store import Entries, MemoryLedger, ledger_key
from clasper_worker.turn.models import TurnIdentity, TurnResult
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TurnRun
from tests.examples import examples

SECRET = "a-secret-of-at-least-32-characters"
REQUEST = parse_send_request(
    {
        "user_id": "u1",
        "message": "Hi",
        "task_title": "Thread",
        "stream": True,
        "metadata": {"kickoff_plan": True},
    }
)
CONFIG = BackendConfig(SECRET, internal_api_token="internal")
IDENTITY = TurnIdentity("turn", "job", "0" * 32)
KEY = ledger_key(REQUEST, IDENTITY)

Script = Sequence[Sequence[str]]
"""The names of the tools that each of the model's replies calls; after the last it answers."""
SCRIPT: Script = [["post_message", "list_tasks"], ["create_document", "create_task"]]


class Killed(BaseException):
    """The worker is gone, between two instructions."""


class Fuse:
    """Kills the run at the n-th point that it passes; never where ``left`` is None."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.passed = 0

    def point(self) -> None:
        self.passed += 1
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class MortalLedger(MemoryLedger):
    def __init__(self, fuse: Fuse) -> None:
        super().__init__()
        self._fuse = fuse

    async def claim(self, key: str, digest: str, *, streamed: bool = False) -> Entries:
        self._fuse.point()
        known = await super().claim(key, digest, streamed=streamed)
        self._fuse.point()
        return known

    async def record(self, key: str, entries: Sequence[tuple[str, str]], spent: float) -> Entries:
        self._fuse.point()
        known = await super().record(key, entries, spent)
        self._fuse.point()
        return known

    def entry(self, name: str) -> str | None:
        return self._turns.get(KEY, {}).get(name)


class MortalTransport(httpx2.AsyncBaseTransport):
    def __init__(self, backend: httpx2.AsyncBaseTransport, fuse: Fuse) -> None:
        self._backend = backend
        self._fuse = fuse
        self.count = 0
        self.posts: defaultdict[str, list[bytes]] = defaultdict(list)
        self.refused: list[int] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._fuse.point()
        self.count += 1
        if request.method == "POST":
            self.posts[json.loads(request.content)["idempotency_key"]].append(request.content)
        response = await self._backend.handle_async_request(request)
        if response.status_code >= 400:
            self.refused.append(response.status_code)
        self._fuse.point()
        return response


class FickleModel:
    """Calls the script's tools with arguments, and answers with words, that it never repeats."""

    def __init__(self, script: Script, ledger: MortalLedger, fuse: Fuse) -> None:
        self._script = script
        self._ledger = ledger
        self._fuse = fuse
        self.calls = 0
        self.openings: list[tuple[ChatMessage, ...]] = []
        self.told: list[tuple[ChatMessage, ...]] = []

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
        confirm: Confirm | None = None,
        listen: Listen | None = None,
        options: CallOptions = NO_OPTIONS,
    ) -> ModelReply:
        assert confirm is not None
        assert listen is not None
        await confirm()
        step = 1 + sum(message.role == "assistant" for message in messages)
        assert self._ledger.entry(f"reply:{step}") is None, "asked for what was known"
        assert self._ledger.entry("outcome") is None
        first = next((i for i, m in enumerate(messages) if m.role == "assistant"), len(messages))
        self._fuse.point()
        self.calls += 1
        # What counts as the opening: once a reply is recorded, no later run may tell another.
        if step > 1:
            self.openings.append(tuple(messages[:first]))
        self.told.append(tuple(messages))
        reply = self._reply(step)
        for word in reply.text.split(" "):
            listen(TextPart(word + " "))
            self._fuse.point()
        return reply

    def _reply(self, step: int) -> ModelReply:
        names = self._script[step - 1] if step <= len(self._script) else ()
        calls = tuple(
            ToolCall(f"call-{self.calls}-{index}", name, json.dumps(self._arguments(name, index)))
            for index, name in enumerate(names)
        )
        text = f"{self.calls} is not it" if calls else f"answer {self.calls}"
        return ModelReply(text, calls, TokenUsage(self.calls, 1), "openai", "gpt-4o-mini", "stop")

    def _arguments(self, name: str, index: int) -> dict[str, Any]:
        word = f"{self.calls}-{index}"
        return {  # type: ignore[return-value]
            "list_tasks": {"limit": 1 + (self.calls * 3 + index) % 50},
            "post_message": {"content": f"note {word}"},
            "create_document": {"title": f"title {word}", "content": "c"},
            "create_task": {"title": f"task {word}"},
        }[name]


class Follower(TurnEvents):
    """Reads the turn's text as others see it; what was not kept when the worker died is lost."""

    def __init__(self, fuse: Fuse) -> None:
        self._fuse = fuse
        self._unkept: list[tuple[int, str | None]] = []
        self._chunks = 0
        self.texts: defaultdict[int, str] = defaultdict(str)

    def started(self, turn: TurnReference, *, resumed: bool, queue_seconds: float | None) -> None:
        self._unkept.clear()

    def chunk(self, turn: TurnReference, *, step: int, text: str) -> None:
        self._unkept.append((step, text))
        self._chunks += 1
        if self._chunks % 2:  # half of them are sent at once
            self._keep()

    def retry(self, turn: TurnReference, *, step: int) -> None:
        self._unkept.append((step, None))

    async def flush(self, turn: TurnReference) -> None:
        self._fuse.point()
        self._keep()
        self._fuse.point()

    def _keep(self) -> None:
        for step, text in self._unkept:
            self.texts[step] = "" if text is None else self.texts[step] + text
        self._unkept.clear()


class OnceToolbox(Toolbox):
    """Fails where a tool is run whose result is known."""

    def __init__(self, ledger: MortalLedger) -> None:
        super().__init__(MISSION_CONTROL_TOOLS)
        self._ledger = ledger
        places = [f"tool:{step}:{index}" for step in range(1, 9) for index in range(9)]
        self._places = {turn_step_key("u1", "turn", place): place for place in places}

    async def call(self, context: ToolContext, call: ToolCall) -> str:  # type: ignore[override]
        place = self._places[context.idempotency_key]
        assert self._ledger.entry(place) is None, "run again"
        return await super().call(context, call)  # type: ignore[return-value]


@dataclass
class World:
    deps: TurnDependencies
    fuse: Fuse
    ledger: MortalLedger
    http: MortalTransport
    model: FickleModel
    follower: Follower
    runs: int = 0
    results: list[TurnResult] = field(default_factory=list)

    async def run(self, kill_at: int | None = None) -> bool:
        """Whether the run came to its end, or was killed."""
        self.fuse.left = kill_at
        self.runs += 1
        identity = TurnIdentity("turn", "job", f"{self.runs:032d}")
        try:
            self.results.append(await TurnRun(REQUEST, identity, self.deps).run())
        except Killed:
            return False
        finally:
            self.fuse.left = None
        return True

    async def check(self, script: Script) -> None:
        """What must hold of a turn that has ended, however often it died."""
        assert self.http.refused == []
        for bodies in self.http.posts.values():
            assert len(set(bodies)) == 1
        result = self.results[-1]
        replies = [
            json.loads(self.ledger.entry(f"reply:{step}") or "")
            for step in range(1, len(script) + 2)
        ]
        assert result.response == replies[-1]["text"]
        said = {step: reply["text"] for step, reply in enumerate(replies, 1)}
        assert self.follower.texts == said
        assert result.usage.prompt_tokens == sum(reply["usage"][0] for reply in replies)
        assert result.tool_calls == sum(map(len, script))
        assert len(set(self.model.openings)) <= 1
        agent = self.deps.mission_control.as_agent(AgentIdentity("u1", "default"))
        messages = [message async for message in agent.messages(result.task_id)]
        known = await made_by(self.ledger, KEY)
        assert known["messages"] == [message.id for message in messages]
        plans = [name for names in script for name in names if name == "create_document"]
        assert len(known["documents"]) == len(plans) + 1  # the reply is a plan as well
        posted = [message.content for message in messages]
        notes = [name for names in script for name in names if name == "post_message"]
        assert len(posted) == len(notes) + 1
        assert posted[-1] == result.response
        made = [name for names in script for name in names if name == "create_task"]
        assert len([task async for task in agent.tasks()]) == 1 + len(made)
        # Whoever asks again gets the very same, and no request is made.
        requests, calls = self.http.count, self.model.calls
        assert await self.run()
        assert self.results[-1] == result
        assert (self.http.count, self.model.calls) == (requests, calls)


@asynccontextmanager
async def no_lock(_: str) -> AsyncIterator[None]:
    yield


@functools.cache
def backend_app() -> FastAPI:
    """To make its routes takes longer than a turn."""
    return create_app(CONFIG)


def empty_backend() -> FastAPI:
    app, wakeups = backend_app(), Wakeups()
    app.state.backend.store.close()
    store = Store(":memory:", on_change=wakeups.wake)
    app.state.backend = replace(app.state.backend, store=store, wakeups=wakeups)
    return app


@asynccontextmanager
async def world(script: Script) -> AsyncIterator[World]:
    fuse = Fuse()
    ledger = MortalLedger(fuse)
    model = FickleModel(script, ledger, fuse)
    follower = Follower(fuse)
    app = empty_backend()
    http = MortalTransport(httpx2.ASGITransport(app), fuse)
    moment = [datetime(2026, 3, 29, 12, 0, tzinfo=UTC)]

    def now() -> datetime:
        moment[0] += timedelta(hours=1)
        return moment[0]

    async with httpx2.AsyncClient(base_url="http://backend.test", transport=http) as client:
        deps = TurnDependencies(
            mission_control=MissionControl(
                BackendTransport(client, attempts=1), AgentTokens(SECRET)
            ),
            ledger=ledger,
            tasks=TaskFinder(no_lock),
            toolbox=OnceToolbox(ledger),
            workspace=lambda *_: WorkspaceSnapshot(Path("/nowhere"), {}, {}),
            model=lambda _: model,
            now=now,
            settings=TurnSettings(),
            events=follower,
        )
        yield World(deps, fuse, ledger, http, model, follower)


async def points(script: Script) -> int:
    async with world(script) as unharmed:
        assert await unharmed.run()
        count = unharmed.fuse.passed
        await unharmed.check(script)
        assert unharmed.model.calls == len(script) + 1
    return count


async def test_wherever_a_turn_dies_it_goes_on_from_there() -> None:
    count = await points(SCRIPT)
    assert count > 40
    for kill_at in range(count):
        async with world(SCRIPT) as mortal:
            assert not await mortal.run(kill_at)
            assert await mortal.run()
            await mortal.check(SCRIPT)
            # At most the one reply that was lost on its way into the journal was asked for again.
            assert mortal.model.calls <= len(SCRIPT) + 2


@settings(max_examples=examples(40))
@given(
    st.lists(
        st.lists(
            st.sampled_from(["list_tasks", "post_message", "create_document", "create_task"]),
            min_size=1,
            max_size=3,
        ),
        max_size=3,
    ),
    st.lists(st.integers(0, 60), max_size=6),
)
async def test_however_often_a_turn_dies_it_ends_as_one(
    script: list[list[str]], kills: list[int]
) -> None:
    async with world(script) as mortal:
        ended = False
        for kill_at in kills:
            ended = ended or await mortal.run(kill_at)
        assert ended or await mortal.run()
        await mortal.check(script)


async def test_a_turn_without_tools_writes_to_the_ledger_twice() -> None:
    class Counting(MortalLedger):
        calls: list[str]

        async def claim(self, key: str, digest: str, *, streamed: bool = False) -> Entries:
            self.calls.append("claim")
            return await super().claim(key, digest, streamed=streamed)

        async def record(
            self, key: str, entries: Sequence[tuple[str, str]], spent: float
        ) -> Entries:
            self.calls.append("+".join(re.sub("^made:.*", "made", name) for name, _ in entries))
            return await super().record(key, entries, spent)

    async with world([]) as quick:
        ledger = Counting(quick.fuse)
        ledger.calls = []
        object.__setattr__(quick.deps, "ledger", ledger)
        assert await quick.run()
    assert ledger.calls == ["claim", "reply:1+outcome", "made+made+result"]


@pytest.mark.parametrize("confirmed", range(8))
async def test_a_run_whose_lease_is_lost_asks_and_posts_nothing_more(confirmed: int) -> None:
    class Lease:
        def __init__(self, running: World, lost_after: int) -> None:
            self.seen: list[tuple[int, int]] = []  # posts and model calls before each
            self._running = running
            self._left = lost_after

        async def confirm(self) -> None:
            self.seen.append(self._effects())
            if self._left == 0:
                raise LeaseLostError("taken over")
            self._left -= 1

        def _effects(self) -> tuple[int, int]:
            return len(self._running.http.posts), self._running.model.calls

    async with world(SCRIPT) as whole:
        unbroken = Lease(whole, 1000)
        object.__setattr__(whole.deps, "lease", unbroken)
        await whole.run()
    # The thread, a message, a document, another task, the reply and the plan; the model between.
    assert len(unbroken.seen) > confirmed
    async with world(SCRIPT) as fenced:
        broken = Lease(fenced, confirmed)
        object.__setattr__(fenced.deps, "lease", broken)
        with pytest.raises(LeaseLostError):
            await fenced.run()
        assert (len(fenced.http.posts), fenced.model.calls) == unbroken.seen[confirmed]
