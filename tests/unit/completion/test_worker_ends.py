"""Turns that the worker ends are reported before they are acknowledged."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from billiard.einfo import ExceptionInfo
from billiard.exceptions import WorkerLostError
from celery import Celery
from kombu.exceptions import OperationalError
from kombu.message import Message

from clasper_worker.completion import worker_ends
from clasper_worker.completion.completion import Completion
from clasper_worker.completion.worker_ends import TurnRequest
from clasper_worker.config.names import WEBHOOK_QUEUE
from clasper_worker.config.settings import get_settings
from clasper_worker.tasks.base import ClasperTask
from clasper_worker.turn.call import TurnCall

HOOK = {"url": "https://example.com/", "secret": "s"}
REQUEST: dict[str, Any] = {
    "user_id": "u1",
    "message": "Hi",
    "idempotency_key": "k",
    "webhook": HOOK,
}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """An app of this test's, which has our tasks: Celery shares them among apps."""
    monkeypatch.setenv("CELERY_BROKER_URL", "memory://")  # no scheduler to be asked
    get_settings.cache_clear()
    app = Celery("test", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_acks_late = True
    queued(app)  # the broker is this process's
    yield app
    app.close()
    get_settings.cache_clear()


def request_of(
    app: Celery, acknowledged: list[int], others: tuple[str, ...] = (), **arguments: Any
) -> TurnRequest:
    """A request whose acknowledgement notes how many webhooks were queued by then.

    ``others`` are jobs that were collected into it, each with the same request but for its key.
    """
    collected = [
        {"job_id": job, "request": {**arguments, "idempotency_key": job}} for job in others
    ]
    message = Message(
        body=json.dumps([[], arguments, {}]),
        content_type="application/json",
        content_encoding="utf-8",
        headers={
            "id": "job-1",
            "task": "clasper.send",
            "clasper_collected": collected,
            "clasper_lease": "tag#1",
        },
    )
    return TurnRequest(
        message,
        app=app,
        task=app.tasks["clasper.send"],
        on_ack=lambda *_: acknowledged.append(len(queued(app, keep=True))),
        on_reject=lambda *_: pytest.fail("rejected"),
    )


def queued(app: Celery, *, keep: bool = False) -> list[dict[str, Any]]:
    """The payloads on the queue of webhooks."""
    found: list[dict[str, Any]] = []
    taken: list[Message] = []
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[WEBHOOK_QUEUE](connection.default_channel)
        queue.declare()
        while (message := queue.get(no_ack=not keep)) is not None:
            taken.append(message)
            found.append(json.loads(message.payload[1]["body"]))
        if keep:
            for message in taken:
                message.requeue()
    return found


def revoke(request: TurnRequest) -> None:
    request._announce_revoked("terminated", True, 15, False)


def expire(request: TurnRequest) -> None:
    request._announce_revoked("expired", False, None, True)


def hard_limit(request: TurnRequest) -> None:
    request.on_timeout(soft=False, timeout=600)


@pytest.mark.parametrize(
    ("end", "status", "code"),
    [
        (revoke, "cancelled", "cancelled"),
        (expire, "cancelled", "expired"),
        (hard_limit, "failed", "turn_timeout"),
    ],
)
def test_a_turn_that_the_worker_ends_is_reported_with_the_reason(
    app: Celery, end: Any, status: str, code: str
) -> None:
    acknowledged: list[int] = []
    end(request_of(app, acknowledged, **REQUEST))
    assert acknowledged == [1]
    (payload,) = queued(app)
    assert (payload["event"], payload["status"]) == ("agent.error", status)
    assert payload["code"] == code
    assert payload["user_id"] == "u1"
    assert payload["job_id"] == "job-1" != payload["turn_id"]


def test_a_soft_limit_is_not_the_end(app: Celery) -> None:
    acknowledged: list[int] = []
    request_of(app, acknowledged, **REQUEST).on_timeout(soft=True, timeout=300)
    assert (acknowledged, queued(app)) == ([], [])


@pytest.mark.parametrize("arguments", [{}, {"webhook": None}, {"webhook": "nonsense"}])
def test_a_turn_without_a_usable_webhook_just_ends(app: Celery, arguments: dict[str, Any]) -> None:
    acknowledged: list[int] = []
    revoke(request_of(app, acknowledged, **{**REQUEST, "webhook": None, **arguments}))
    assert (acknowledged, queued(app)) == ([0], [])


def test_a_broker_that_does_not_take_the_report_does_not_keep_the_turn_from_ending(
    app: Celery,
) -> None:
    class Unreachable(ClasperTask):
        name = "clasper.webhook"

        async def run(self, **_: object) -> None: ...

        def apply_async(self, *_: Any, **__: Any) -> Any:
            raise OperationalError("down")

    app.tasks.unregister("clasper.webhook")
    app.register_task(Unreachable())
    acknowledged: list[str] = []
    request = request_of(app, [], **REQUEST)
    request._on_ack = lambda *_: acknowledged.append("yes")
    revoke(request)
    assert acknowledged == ["yes"]


@pytest.mark.parametrize(
    ("end", "state", "code"),
    [(revoke, "REVOKED", "cancelled"), (hard_limit, "FAILURE", "turn_timeout")],
)
def test_a_stop_is_the_end_of_all_that_were_collected_into_the_turn_and_is_reported_to_all(
    app: Celery, end: Any, state: str, code: str
) -> None:
    others = (uuid.uuid4().hex, uuid.uuid4().hex)
    acknowledged: list[int] = []
    end(request_of(app, acknowledged, others, **REQUEST))
    assert acknowledged == [3]
    payloads = queued(app)
    told = [(payload["job_id"], payload["code"]) for payload in payloads]
    assert told == [(job, code) for job in ("job-1", *others)]
    assert len({payload["delivery_id"] for payload in payloads}) == 3
    assert [app.backend.get_state(job) for job in others] == [state, state]


def test_one_of_the_collected_that_has_ended_by_itself_is_left_alone(app: Celery) -> None:
    done, gone = uuid.uuid4().hex, uuid.uuid4().hex
    app.backend.store_result(done, {"status": "ok"}, "SUCCESS")
    app.backend.mark_as_revoked(gone, "revoked")
    revoke(request_of(app, [], (done, gone), **REQUEST))
    assert [payload["job_id"] for payload in queued(app)] == ["job-1"]
    assert [app.backend.get_state(job) for job in (done, gone)] == ["SUCCESS", "REVOKED"]


def test_that_a_job_was_cancelled_is_not_taken_for_the_end_of_its_turn(app: Celery) -> None:
    for end in (revoke, revoke, hard_limit):
        end(request_of(app, [], **REQUEST))
    first, again, of_the_turn = (payload["delivery_id"] for payload in queued(app))
    assert first == again != of_the_turn


def test_where_those_collected_cannot_run_by_themselves_they_end_with_what_never_ran(
    app: Celery, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("CELERY_BROKER_URL=redis://127.0.0.1:1/0\n")  # nobody is there
    other = uuid.uuid4().hex
    expire(request_of(app, [], (other,), **REQUEST))
    assert [payload["code"] for payload in queued(app)] == ["expired", "expired"]
    assert app.backend.get_state(other) == "REVOKED"


class Scheduler:
    """The broker's: it gives collected jobs back, and knows which of them are still collected."""

    def __init__(self, *members: str) -> None:
        self._members = members
        self.parted: list[tuple[str, list[str]]] = []

    def part(self, token: str, jobs: list[str]) -> int:
        self.parted.append((token, jobs))
        return len(jobs)

    def members(self, token: str) -> frozenset[str]:
        assert token == "tag#1"
        return frozenset(self._members)

    def close(self) -> None: ...


@pytest.mark.parametrize("end", [expire, lambda it: it._announce_revoked("revoked", 0, None, 0)])
def test_a_job_that_ends_before_it_runs_leaves_those_collected_with_it_to_run_without_it(
    app: Celery, monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    other, schedule = uuid.uuid4().hex, Scheduler()
    monkeypatch.setattr(worker_ends, "open_schedule", lambda _: schedule)
    end(request_of(app, [], (other,), **REQUEST))
    assert schedule.parted == [("tag#1", [other])]
    assert [payload["job_id"] for payload in queued(app)] == ["job-1"]
    assert app.backend.get_state(other) == "PENDING"


@pytest.mark.parametrize("end", [revoke, hard_limit])
def test_a_stop_is_not_the_end_of_one_that_waits_for_a_turn_of_its_own_again(
    app: Celery, monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    member, apart = uuid.uuid4().hex, uuid.uuid4().hex
    monkeypatch.setattr(worker_ends, "open_schedule", lambda _: Scheduler(member))
    end(request_of(app, [], (member, apart), **REQUEST))
    assert [payload["job_id"] for payload in queued(app)] == ["job-1", member]
    assert app.backend.get_state(apart) == "PENDING"


@pytest.mark.parametrize("end", [revoke, hard_limit])
def test_the_end_of_one_that_was_collected_is_stored_before_it_is_reported(
    app: Celery, monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    other = uuid.uuid4().hex
    states: dict[str, str] = {}

    def ending(_: Completion, call: TurnCall, *__: Any) -> bool:
        states[call.job_id] = app.backend.get_state(call.job_id)
        return True

    monkeypatch.setattr(Completion, "revoked", ending)
    monkeypatch.setattr(Completion, "stopped", ending)
    end(request_of(app, [], (other,), **REQUEST))
    assert states[other] in {"REVOKED", "FAILURE"}


def lost(request: TurnRequest) -> None:
    """As a pool reports that its child was killed."""
    killed = WorkerLostError("Worker exited prematurely: signal 9 (SIGKILL)")
    try:
        raise killed
    except WorkerLostError:
        request.on_failure(ExceptionInfo())


@pytest.mark.parametrize("tag", ["tag#1", 7])
def test_a_turn_that_lost_its_process_is_given_back_and_says_why(app: Celery, tag: Any) -> None:
    requeued: list[bool] = []
    request = request_of(app, [], **REQUEST)
    request.message.delivery_tag = tag
    request._on_reject = lambda _log, _errors, requeue: requeued.append(requeue)
    lost(request)
    assert requeued == [True]
    assert request.message.lost_its_process
    assert queued(app) == []


def test_one_that_lost_it_twice_fails_where_the_broker_does_not_count(app: Celery) -> None:
    acknowledged: list[int] = []
    request = request_of(app, acknowledged, **REQUEST)
    request.delivery_info["redelivered"] = True
    lost(request)
    assert acknowledged == [1]
    (payload,) = queued(app)
    assert (payload["event"], payload["code"]) == ("agent.error", "worker_lost")
    stored = app.backend.get_task_meta("job-1")
    assert (stored["status"], type(stored["result"]).__name__) == ("FAILURE", "WorkerLostError")
