"""What users of Celery see of the asyncio pool: states, results, events, limits, control."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest
from celery import chain
from celery.exceptions import (
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
)
from celery.states import READY_STATES
from pool_harness import Events, Find, Notes, RedisServer, Send, StartWorker, Worker

from tests.waiting import until

pytestmark = pytest.mark.integration

POOL = "clasper_worker.engine.pool.pool:TaskPool"


@pytest.fixture(scope="module")
def worker(start_worker: StartWorker, events: Events) -> Iterator[Worker]:
    del events  # listening before the worker starts
    with start_worker("-c", "1000") as worker:
        yield worker


@pytest.fixture
def key() -> str:
    return f"note:{uuid4()}"


def _in_flight(worker: Worker) -> int:
    return int(worker.ask("stats")["pool"]["in-flight"])


def test_the_asyncio_pool_is_what_runs(worker: Worker) -> None:
    pool = worker.ask("stats")["pool"]
    assert pool["implementation"] == POOL
    assert pool["max-concurrency"] == 1000
    assert pool["event-loop"] == "uvloop"


def test_a_coroutine_returns_its_result(worker: Worker, send: Send) -> None:
    result = send("probe.echo", args=["hello"])
    assert result.get()["value"] == "hello"
    assert result.state == "SUCCESS"


def test_a_coroutine_knows_its_job(worker: Worker, send: Send) -> None:
    result = send("probe.echo", args=[1], soft_time_limit=20, time_limit=30, root_id="the-root")
    seen = result.get()
    assert seen["request_id"] == result.id
    assert seen["thread"] == "clasper-loop"
    assert seen["job"] == {
        "id": result.id,
        "name": "probe.echo",
        "retries": 0,
        "redelivered": False,
        "hostname": worker.name,
        "queue": "celery",
        "root_id": "the-root",
        "parent_id": None,
        "soft_limit": 20,
        "hard_limit": 30,
        "eager": False,
    }


def test_a_thousand_coroutines_are_in_flight_at_once(worker: Worker, send: Send) -> None:
    # Each returns only when all thousand are running.
    results = [send("probe.meet", args=["all", 1000]) for _ in range(1000)]
    assert {result.get() for result in results} == {1000}


def test_started_is_visible_while_the_coroutine_runs(
    worker: Worker, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key, 1.5])
    until(lambda: notes(key), "the coroutine runs")
    until(lambda: result.state == "STARTED")
    assert result.meta["result"]["hostname"] == worker.name
    assert result.get() == "finished"


def test_events_tell_the_coroutines_true_runtime(
    worker: Worker, send: Send, events: Events, key: str
) -> None:
    result = send("probe.hold", args=[key, 0.5])
    succeeded = events.wait_for(result.id, "task-succeeded")
    assert 0.5 <= succeeded["runtime"] < 5
    assert {"task-received", "task-started", "task-succeeded"} == set(events.of(result.id))
    line = next(line for line in worker.log.splitlines() if f"{result.id}] succeeded" in line)
    assert f"succeeded in {succeeded['runtime']}s" in line


def test_an_exception_is_a_failure_with_its_traceback(
    worker: Worker, send: Send, events: Events
) -> None:
    result = send("probe.fail", args=["no luck"])
    with pytest.raises(ValueError, match="no luck"):
        result.get()
    assert result.state == "FAILURE"
    assert "in fail" in result.meta["traceback"]
    assert "no luck" in events.wait_for(result.id, "task-failed")["exception"]


def test_arguments_that_the_body_does_not_take_are_a_failure(worker: Worker, send: Send) -> None:
    result = send("probe.echo", kwargs={"unknown": 1})
    with pytest.raises(TypeError, match="unknown"):
        result.get()


def test_a_coroutine_that_exits_does_not_take_the_worker_with_it(
    worker: Worker, send: Send
) -> None:
    result = send("probe.exit")
    with pytest.raises(WorkerLostError):
        result.get()
    assert send("probe.echo", args=[1]).get()["value"] == 1


@pytest.mark.parametrize("task", ["probe.retry", "probe.autoretry"])
def test_retries_are_celerys(worker: Worker, send: Send, events: Events, task: str) -> None:
    result = send(task, args=[2])
    assert result.get() == 2
    assert events.wait_for(result.id, "task-retried")


def test_a_rejected_task_ends_in_failure(worker: Worker, send: Send) -> None:
    result = send("probe.reject")
    until(lambda: result.state == "FAILURE")


def test_a_chain_passes_results_on(worker: Worker, find: Find) -> None:
    first = worker.app.signature("probe.retry", args=[0])
    second = worker.app.signature("probe.bridged")
    assert find(chain(first, second, app=worker.app)().id).get() == 0


def test_the_soft_limit_can_be_caught_and_ends_in_failure(
    worker: Worker, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.say_goodbye", args=[key], soft_time_limit=0.2)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get()
    assert notes(key) == ["goodbye 0.2"]
    assert result.state == "FAILURE"
    assert f"Soft time limit (0.2s) exceeded for probe.say_goodbye[{result.id}]" in worker.log


def test_the_hard_limit_bounds_what_a_coroutine_does_after_the_soft_one(
    worker: Worker, send: Send, events: Events, notes: Notes, key: str
) -> None:
    result = send("probe.say_goodbye", args=[key, 60], soft_time_limit=0.2, time_limit=0.6)
    with pytest.raises(TimeLimitExceeded):
        result.get()
    assert notes(key) == ["goodbye 0.2"]
    assert "TimeLimitExceeded" in events.wait_for(result.id, "task-failed")["traceback"]


def test_the_hard_limit_cancels(
    worker: Worker, send: Send, server: RedisServer, notes: Notes, key: str
) -> None:
    result = send("probe.hold", args=[key], time_limit=0.3)
    with pytest.raises(TimeLimitExceeded):
        result.get()
    assert until(lambda: notes(key)[1:]) == ["CancelledError"]
    until(lambda: not _is_unacknowledged(server, result.id), "it is acknowledged")


def test_a_scope_keeps_the_soft_limit_from_being_swallowed(
    worker: Worker, send: Send, notes: Notes, key: str
) -> None:
    result = send("probe.swallow", args=[key], soft_time_limit=0.2)
    with pytest.raises(SoftTimeLimitExceeded):
        result.get()
    assert notes(key) == ["limited"]


def _is_unacknowledged(server: RedisServer, task_id: str) -> bool:
    return any(task_id in message for message in server.client.hvals("unacked"))


def test_revoke_with_terminate_cancels(
    worker: Worker,
    send: Send,
    server: RedisServer,
    events: Events,
    notes: Notes,
    key: str,
) -> None:
    result = send("probe.hold", args=[key])
    until(lambda: notes(key))
    result.revoke(terminate=True)
    with pytest.raises(TaskRevokedError, match="terminated"):
        result.get()
    assert result.state == "REVOKED"
    assert until(lambda: notes(key)[1:]) == ["CancelledError"]
    assert events.wait_for(result.id, "task-revoked")["terminated"]
    until(lambda: not _is_unacknowledged(server, result.id), "it is acknowledged")
    assert not {"task-failed", "task-succeeded"} & set(events.of(result.id))


def test_a_stamp_terminates_its_tasks_alone(
    worker: Worker, send: Send, notes: Notes, key: str
) -> None:
    stamped = send("probe.hold", args=[key], stamped_headers=["tenant"], tenant="t1")
    other = send("probe.hold", args=[key + "b", 1.0])
    until(lambda: notes(key) and notes(key + "b"))
    worker.app.control.revoke_by_stamped_headers({"tenant": ["t1"]}, terminate=True)
    until(lambda: stamped.state == "REVOKED")
    assert other.get() == "finished"


def test_outcome_and_revocation_exclude_each_other(
    worker: Worker, send: Send, events: Events
) -> None:
    # Revocations that arrive at about the moment at which the coroutine ends.
    results = [send("probe.hold", args=["race", 0.05]) for _ in range(60)]

    def end(result: Any) -> str:
        result.revoke(terminate=True)
        return str(until(lambda: result.state in READY_STATES and result.state))

    with ThreadPoolExecutor(4) as threads:
        states = list(threads.map(end, results))
    assert set(states) <= {"SUCCESS", "REVOKED"}
    for result, state in zip(results, states, strict=True):
        ends = {"SUCCESS": "task-succeeded", "REVOKED": "task-revoked"}
        events.wait_for(result.id, ends.pop(state))
        assert ends.popitem()[1] not in events.of(result.id)


def test_inspect_shows_what_is_active(worker: Worker, send: Send, notes: Notes, key: str) -> None:
    result = send("probe.hold", args=[key, 1.0])
    until(lambda: notes(key))
    active = {task["id"]: task for task in worker.ask("active")}
    assert active[result.id]["name"] == "probe.hold"
    assert active[result.id]["hostname"] == worker.name
    assert worker.ask("ping") == {"ok": "pong"}
    result.get()


def test_a_plain_function_runs_in_a_thread_beside_the_loop(worker: Worker, send: Send) -> None:
    plain = send("probe.plain", args=[1.0])
    # The loop goes on meanwhile.
    assert send("probe.echo", args=[1]).get()["value"] == 1
    assert plain.get().startswith("clasper-plain")


def test_a_plain_function_may_wait_for_a_coroutine(worker: Worker, send: Send) -> None:
    assert send("probe.bridged", args=[21]).get() == 42


def test_a_task_of_another_pools_habits_is_acknowledged_early(
    worker: Worker, send: Send, server: RedisServer, notes: Notes, key: str
) -> None:
    result = send("probe.hold_early", args=[key, 1.0])
    until(lambda: notes(key))
    until(lambda: not _is_unacknowledged(server, result.id), "it is acknowledged")
    until(lambda: result.state == "STARTED")
    assert result.get() == "finished"


@pytest.fixture(scope="module")
def narrow(start_worker: StartWorker) -> Iterator[Worker]:
    with start_worker("-c", "10", queue="narrow") as worker:
        yield worker


def test_no_more_than_c_are_in_flight_and_prefetched(
    narrow: Worker, send: Send, server: RedisServer
) -> None:
    results = [send("probe.count", args=[0.4], queue="narrow") for _ in range(40)]
    until(lambda: _in_flight(narrow) == 10, "all slots are taken")
    stats = narrow.ask("stats")
    assert stats["prefetch_count"] == 10
    assert stats["pool"]["waiting"] == 0
    delivered = [message for message in server.client.hvals("unacked") if "narrow" in message]
    assert len(delivered) <= 10
    assert max(result.get() for result in results) == 10


def test_the_pool_grows_and_shrinks_by_remote_control(narrow: Worker, send: Send) -> None:
    narrow.ask("pool_grow", n=3)
    met = [send("probe.meet", args=["wider", 13], queue="narrow") for _ in range(13)]
    assert [result.get() for result in met] == [13] * 13
    narrow.ask("pool_shrink", n=3)
    assert narrow.ask("stats")["pool"]["max-concurrency"] == 10
