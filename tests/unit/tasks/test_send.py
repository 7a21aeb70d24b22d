"""``clasper.send``: how each way that a turn can end becomes the end of its jobs."""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from celery.app.task import Context
from celery.exceptions import Ignore, Reject, SoftTimeLimitExceeded
from redis.exceptions import ConnectionError as RedisConnectionError

from clasper_worker import process
from clasper_worker.celery import app
from clasper_worker.engine.queue.dead_letters import Doom
from clasper_worker.engine.queue.delivery import COLLECTED_HEADER, VERDICT_HEADER
from clasper_worker.engine.queue.headers import NOTIFICATION_HEADER
from clasper_worker.engine.queue.identity import turn_id_for
from clasper_worker.engine.queue.message import ROUTE_HEADER
from clasper_worker.errors import (
    ClasperError,
    InvalidRequestError,
    LeaseLostError,
    ModelUnavailableError,
    SessionBusyError,
    TurnCancelledError,
    TurnConflictError,
    TurnTimeoutError,
)
from clasper_worker.tasks.send import send
from clasper_worker.testing import ScriptedModel, says
from clasper_worker.turn.journal_store import MemoryLedger
from clasper_worker.turn.request import parse_send_request
from clasper_worker.turn.run import TIMED_OUT_TEXT
from tests.unit.completion.conftest import HOOK, MARK, Listeners, stand_in
from tests.unit.turn.conftest import TurnHarness

REQUEST = {
    "user_id": "u1",
    "message": "Hello",
    "task_title": "Thread",
    "idempotency_key": "k",
    "webhook": HOOK,
}
DOWN = ModelUnavailableError("The model did not answer")
OUT_OF_TIME = SoftTimeLimitExceeded(300)


@dataclass
class Worker:
    """A worker as ``clasper.send`` sees it: what it shares, Celery's results, and the fence.

    Attributes:
        states: of other jobs than the one that runs, as stored.
        parted: jobs that were given back to wait for turns of their own.
        lost: raised where the run makes sure that the turn is still its own, from the time on that
            so many posts were made.
    """

    harness: TurnHarness
    listeners: Listeners
    states: dict[str, str] = field(default_factory=dict)
    parted: list[str] = field(default_factory=list)
    lost: tuple[int, Exception] | None = None
    thread_safe = True

    async def run(
        self, *replies: Any, headers: dict[str, Any] | None = None, args: tuple[Any, ...] = (),
        job_id: str = "job-1", **changes: Any,
    ) -> Any:  # fmt: skip
        self.turns = replace(self.harness.deps, model=lambda _: ScriptedModel(replies))
        send.request_stack.push(Context(id=job_id, called_directly=False, **(headers or {})))
        try:
            return await send.coroutine(*args, **{**REQUEST, **changes})
        finally:
            send.request_stack.pop()

    @property
    def posts(self) -> list[dict[str, Any]]:
        """The messages that the backend was sent."""
        return [
            json.loads(request.content)
            for request in self.harness.http.requests
            if (request.method, request.url.path.rsplit("/", 1)[-1]) == ("POST", "messages")
        ]

    def of(self, job_id: str, turn_id: str | None) -> Any:
        del job_id, turn_id
        return self

    async def confirm(self) -> None:
        if self.lost is not None and len(self.posts) >= self.lost[0]:
            raise self.lost[1]

    async def part(self, token: str | None, job_ids: tuple[str, ...]) -> None:
        del token
        self.listeners.heard.append("part")
        self.parted += job_ids

    def get_state(self, job_id: str) -> str:
        return self.states.get(job_id, "PENDING")

    def store_result(self, job_id: str, end: Any, state: str) -> None:
        del end
        self.listeners.heard.append(f"store {state} of {job_id}")
        if "results" in self.listeners.down:
            raise RedisConnectionError("down")
        self.states[job_id] = state


@pytest.fixture
def worker(harness: TurnHarness, listeners: Listeners, monkeypatch: pytest.MonkeyPatch) -> Worker:
    made = Worker(harness, listeners)
    made.turns = harness.deps

    class Runtime:
        internal = listeners

        @property
        def turns(self) -> Any:
            return made.turns

    stand_in(monkeypatch, process.RUNTIME, Runtime())
    stand_in(monkeypatch, process.DOOM, Doom(None))
    stand_in(monkeypatch, process.GROUPS, made)
    stand_in(monkeypatch, process.CANCELLED, made)
    monkeypatch.setattr(app, "_backend_cache", made)
    deliver = listeners.deliver

    async def after_posts(notification_id: str, user_id: str) -> None:
        listeners.heard.append(f"{len(made.posts)} posted")
        await deliver(notification_id, user_id)

    monkeypatch.setattr(listeners, "deliver", after_posts)
    return made


def collected(*jobs: str, **request: Any) -> dict[str, Any]:
    return {
        COLLECTED_HEADER: [
            {"job_id": job, "request": {**REQUEST, "idempotency_key": job, **request}}
            for job in jobs
        ]
    }


async def test_a_reply_is_posted_then_acknowledged_then_reported_and_then_returned(
    worker: Worker,
) -> None:
    result = await worker.run(says("Hi"), headers={NOTIFICATION_HEADER: MARK})
    assert result.response == "Hi"
    assert worker.listeners.heard == [
        "1 posted",
        "acknowledge u1/n1",
        "note delivered",
        "enqueue agent.completed",
    ]
    (payload,) = worker.listeners.payloads
    assert (payload["job_id"], payload["turn_id"]) == ("job-1", result.turn_id)


async def test_a_turn_that_fails_is_reported_before_its_error_is_raised(worker: Worker) -> None:
    with pytest.raises(ModelUnavailableError):
        await worker.run(DOWN, headers={NOTIFICATION_HEADER: MARK})
    assert worker.posts == []
    assert worker.listeners.heard == ["note failed", "enqueue agent.error"]


async def test_reply_and_timeout_of_one_turn_are_posted_under_one_key(worker: Worker) -> None:
    await worker.run(says("Hi"))
    worker.harness.deps = replace(worker.harness.deps, ledger=MemoryLedger())  # all is forgotten
    with pytest.raises(TurnTimeoutError):
        await worker.run(OUT_OF_TIME)
    reply, timeout = worker.posts
    assert (reply["content"], timeout["content"]) == ("Hi", TIMED_OUT_TEXT)
    assert reply["idempotency_key"] == timeout["idempotency_key"]
    assert await worker.harness.messages(reply["task_id"]) == ["Hi"]


async def test_a_reply_that_an_earlier_run_has_posted_and_forgotten_is_acknowledged(
    worker: Worker,
) -> None:
    await worker.run(says("Hi"), webhook=None)
    worker.harness.deps = replace(worker.harness.deps, ledger=MemoryLedger())
    with pytest.raises(TurnConflictError):
        await worker.run(says("Hello"), headers={NOTIFICATION_HEADER: MARK}, webhook=None)
    assert worker.listeners.heard == ["2 posted", "acknowledge u1/n1", "note delivered"]


async def test_a_timeout_that_is_posted_is_a_failure_and_acknowledged(worker: Worker) -> None:
    with pytest.raises(TurnTimeoutError):
        await worker.run(OUT_OF_TIME, headers={NOTIFICATION_HEADER: MARK})
    assert worker.listeners.heard == [
        "1 posted",
        "acknowledge u1/n1",
        "note delivered",
        "enqueue agent.error",
    ]
    assert [payload["code"] for payload in worker.listeners.payloads] == ["turn_timeout"]


@pytest.mark.parametrize("at", [0, 1])
async def test_a_run_that_lost_its_lease_ends_nothing_for_anybody(worker: Worker, at: int) -> None:
    worker.lost = (at, LeaseLostError("taken over"))
    # After the reply, before the plan.
    replies = (says("Hi"),) if at else ()
    metadata = {"kickoff_plan": True} if at else {}
    headers = {NOTIFICATION_HEADER: MARK, **collected("b")}
    with pytest.raises(Ignore):  # neither a result nor a failure is stored of it
        await worker.run(*replies, headers=headers, metadata=metadata)
    assert len(worker.posts) == at
    assert (worker.listeners.heard, worker.states) == ([], {})


async def test_a_turn_that_is_cancelled_is_left_to_its_task_to_end(worker: Worker) -> None:
    worker.lost = (0, TurnCancelledError("cancelled"))
    with pytest.raises(TurnCancelledError):
        await worker.run(headers={NOTIFICATION_HEADER: MARK, **collected("b")})
    assert (worker.posts, worker.listeners.heard, worker.states) == ([], [], {})


@pytest.mark.parametrize("replies", [(says("Hi"),), (DOWN,), (OUT_OF_TIME,)])
async def test_a_broker_that_is_away_has_the_message_come_again_and_nothing_is_posted_twice(
    worker: Worker, replies: tuple[Any, ...]
) -> None:
    worker.listeners.down = {"broker"}
    headers = collected("b")
    with pytest.raises(Reject) as caught:
        await worker.run(*replies, headers=headers)
    assert caught.value.requeue
    assert worker.states == {}  # theirs is not said before all is
    worker.listeners.down = set()
    is_over = replies != (DOWN,)  # a turn that posted nothing runs again
    with pytest.raises(ClasperError) if replies != (says("Hi"),) else nullcontext():
        await worker.run(*(() if is_over else replies), headers=headers)
    texts = {post["content"] for post in worker.posts}
    for post in worker.posts[:1]:
        assert await worker.harness.messages(post["task_id"]) == [*texts]
    assert len(worker.listeners.deliveries) == 2  # its own, and b's
    assert worker.states == {"b": "SUCCESS" if replies == (says("Hi"),) else "FAILURE"}


@pytest.mark.parametrize(
    ("replies", "error"), [((says("Hi"),), None), ((DOWN,), ModelUnavailableError)]
)
async def test_results_that_cannot_be_stored_have_the_message_come_again(
    worker: Worker, replies: tuple[Any, ...], error: Any
) -> None:
    worker.listeners.down = {"results"}
    with pytest.raises(Reject) as caught:
        await worker.run(*replies, headers=collected("b"))
    assert caught.value.requeue
    assert [payload["job_id"] for payload in worker.listeners.payloads] == ["job-1"]
    worker.listeners.down = set()
    with pytest.raises(error) if error else nullcontext():
        await worker.run(*replies, headers=collected("b"))
    # The first is told of its end a second time, under the same id.
    ids: dict[str, set[str]] = {}
    for payload in worker.listeners.payloads:
        ids.setdefault(payload["job_id"], set()).add(payload["delivery_id"])
    assert {job: len(found) for job, found in ids.items()} == {"job-1": 1, "b": 1}
    assert len(worker.listeners.deliveries) == 3


async def test_the_others_get_the_result_stored_and_then_reported_as_their_own(
    worker: Worker,
) -> None:
    headers = collected("b", "c")
    headers[COLLECTED_HEADER][1]["notification"] = MARK
    result = await worker.run(says("Hi"), headers=headers)
    assert worker.listeners.heard == [
        "enqueue agent.completed",
        "store SUCCESS of b",
        "enqueue agent.completed",
        "store SUCCESS of c",
        "1 posted",
        "acknowledge u1/n1",
        "note delivered",
        "enqueue agent.completed",
    ]
    told = worker.listeners.payloads
    assert [payload["job_id"] for payload in told] == ["job-1", "b", "c"]
    assert {payload["response"] for payload in told} == {"Hi"}
    turns = [payload["turn_id"] for payload in told]
    assert turns == [result.turn_id, *(turn_id_for("u1", key, key) for key in ("b", "c"))]


async def test_one_that_was_revoked_by_itself_is_detached_and_the_turn_goes_on(
    worker: Worker,
) -> None:
    worker.states["b"] = "REVOKED"
    result = await worker.run(says("Hi"), headers=collected("b", "c"))
    assert result.response == "Hi"
    assert worker.states == {"b": "REVOKED", "c": "SUCCESS"}
    assert [payload["job_id"] for payload in worker.listeners.payloads] == ["job-1", "c"]


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"message": ""}, "message"),
        ({"args": ("u1", "Hello")}, "positional"),
        ({"headers": {NOTIFICATION_HEADER: {"malformed": {"id": "n", "reason": "bad"}}}}, "bad"),
        ({"headers": {ROUTE_HEADER: {"user_id": "u2"}}}, "clasper_route"),
        ({"headers": {VERDICT_HEADER: "misrouted"}}, "clasper_route"),
    ],
)
async def test_what_cannot_be_run_fails_and_is_reported_and_leaves_the_others_apart(
    worker: Worker, asked: dict[str, Any], code: str
) -> None:
    headers = {**asked.pop("headers", {}), **collected("b")}
    with pytest.raises(InvalidRequestError, match=code):
        await worker.run(headers=headers, **asked)
    assert (worker.posts, worker.states, worker.parted) == ([], {}, ["b"])
    (payload,) = worker.listeners.payloads
    assert (payload["event"], payload["code"]) == ("agent.error", "invalid_request")


@pytest.mark.parametrize("asked", [{"message": ""}, {"headers": {ROUTE_HEADER: {"user_id": "u2"}}}])
async def test_the_others_need_not_wait_for_a_broker_that_does_not_take_the_firsts_failure(
    worker: Worker, asked: dict[str, Any]
) -> None:
    worker.listeners.down = {"broker"}
    headers = {**asked.pop("headers", {}), **collected("b")}
    with pytest.raises(Reject):
        await worker.run(headers=headers, **asked)
    assert worker.listeners.heard == ["part", "enqueue agent.error"]


async def test_a_turn_that_the_scheduler_refused_is_told_apart_from_the_turns_own_failure(
    worker: Worker,
) -> None:
    with pytest.raises(SessionBusyError):
        await worker.run(headers={VERDICT_HEADER: "busy"})
    with pytest.raises(ModelUnavailableError):
        await worker.run(DOWN)
    busy, own = worker.listeners.deliveries
    assert busy.delivery_id != own.delivery_id
    assert busy.turn_id == own.turn_id


async def test_a_request_is_parsed_once_in_a_turn(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    parsed: list[str] = []

    def counting(data: Any, limits: Any = None) -> Any:
        parsed.append(data["idempotency_key"])
        return parse_send_request(data, limits)

    monkeypatch.setattr("clasper_worker.turn.call.parse_send_request", counting)
    await worker.run(says("Hi"), headers=collected("b"))
    assert parsed == ["k", "b"]
