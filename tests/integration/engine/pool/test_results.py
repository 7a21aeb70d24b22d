"""Storing states on Redis in one step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from celery import Celery, states
from celery.app.task import Context
from celery.exceptions import BackendStoreError, TaskRevokedError
from pool_harness import Find, RedisServer

from clasper_worker.engine.pool.result_backend import AtomicRedisBackend

pytestmark = pytest.mark.integration


@pytest.fixture
def backend(server: RedisServer) -> Iterator[AtomicRedisBackend]:
    app = Celery("results", set_as_current=False)
    app.conf.update(result_expires=600, result_failure_expires=60)
    backend = AtomicRedisBackend(app=app, url=server.url)
    yield backend
    backend.client.close()
    app.close()


@pytest.fixture
def task_id() -> str:
    return str(uuid4())


def test_celerys_own_backend_reads_what_is_stored(
    backend: AtomicRedisBackend, find: Find, task_id: str
) -> None:
    backend.store_result(task_id, {"pid": 1}, states.STARTED, request=Context(id=task_id))
    assert find(task_id).state == "STARTED"
    backend.mark_as_done(task_id, {"answer": 42}, request=Context(id=task_id))
    assert find(task_id).get() == {"answer": 42}


def test_an_error_is_stored_with_its_type(
    backend: AtomicRedisBackend, find: Find, task_id: str
) -> None:
    backend.mark_as_failure(task_id, ValueError("wrong"), "the traceback", Context(id=task_id))
    with pytest.raises(ValueError, match="wrong"):
        find(task_id).get()
    assert find(task_id).meta["traceback"] == "the traceback"


@pytest.mark.parametrize(
    ("state", "result"),
    [
        ("STARTED", {"pid": 1}),
        ("RETRY", ValueError("again")),
        ("REVOKED", TaskRevokedError("terminated")),
        ("FAILURE", ValueError("wrong")),
    ],
)
def test_nothing_overwrites_success(
    backend: AtomicRedisBackend, find: Find, task_id: str, state: str, result: object
) -> None:
    backend.store_result(task_id, "done", states.SUCCESS)
    backend.store_result(task_id, result, state)
    assert find(task_id).meta["result"] == "done"


def test_success_wins_whoever_writes_at_the_same_time(
    backend: AtomicRedisBackend, find: Find
) -> None:
    task_ids = [str(uuid4()) for _ in range(50)]
    writes = [(task_id, state) for task_id in task_ids for state in ("SUCCESS", "STARTED")]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda write: backend.store_result(write[0], "r", write[1]), writes))
    assert {find(task_id).state for task_id in task_ids} == {"SUCCESS"}


def test_a_result_that_speaks_of_success_is_not_taken_for_it(
    backend: AtomicRedisBackend, find: Find, task_id: str
) -> None:
    backend.store_result(task_id, {"status": "SUCCESS"}, states.STARTED)
    backend.mark_as_revoked(task_id, "terminated", Context(id=task_id))
    assert find(task_id).state == "REVOKED"


def test_results_and_failures_are_kept_as_long_as_configured(
    backend: AtomicRedisBackend, server: RedisServer, task_id: str
) -> None:
    key = backend.get_key_for_task(task_id)
    backend.store_result(task_id, ValueError("wrong"), states.FAILURE)
    assert 0 < server.client.ttl(key) <= 60
    backend.store_result(task_id, "done", states.SUCCESS)
    assert 60 < server.client.ttl(key) <= 600


def test_without_an_expiry_results_are_kept(server: RedisServer, task_id: str) -> None:
    app = Celery("kept", set_as_current=False)
    app.conf.result_expires = None
    backend = AtomicRedisBackend(app=app, url=server.url)
    backend.store_result(task_id, "done", states.SUCCESS)
    assert server.client.ttl(backend.get_key_for_task(task_id)) == -1
    backend.client.close()
    app.close()


def test_who_waits_is_told(backend: AtomicRedisBackend, server: RedisServer, task_id: str) -> None:
    with server.client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe(backend.get_key_for_task(task_id).decode())
        listener.get_message(timeout=5)
        backend.store_result(task_id, "done", states.SUCCESS)
        message = listener.get_message(timeout=5) or listener.get_message(timeout=5)
    assert message is not None
    assert task_id in message["data"]


def test_a_result_that_is_too_large_is_refused(
    backend: AtomicRedisBackend, monkeypatch: pytest.MonkeyPatch, task_id: str
) -> None:
    monkeypatch.setattr(AtomicRedisBackend, "_MAX_STR_VALUE_SIZE", 100)
    with pytest.raises(BackendStoreError, match="too large"):
        backend.store_result(task_id, "x" * 200, states.SUCCESS)


def test_many_states_are_stored_in_one_exchange(
    backend: AtomicRedisBackend, find: Find, server: RedisServer
) -> None:
    task_ids = [str(uuid4()) for _ in range(20)]
    before = server.client.info("commandstats").get("cmdstat_evalsha", {}).get("calls", 0)
    writes = [backend.prepare(task_id, task_id, states.SUCCESS) for task_id in task_ids]
    assert backend.write(writes) == [None] * 20
    assert server.client.info("commandstats")["cmdstat_evalsha"]["calls"] - before >= 20
    assert [find(task_id).get() for task_id in task_ids] == task_ids


def test_a_redis_that_forgot_the_script_learns_it_again(
    backend: AtomicRedisBackend, find: Find, server: RedisServer, task_id: str
) -> None:
    for value in (1, 2):
        server.client.script_flush()
        backend.write([backend.prepare(f"{task_id}-{value}", value, states.SUCCESS)])
        assert find(f"{task_id}-{value}").get() == value


def test_one_that_redis_refuses_does_not_take_the_others_with_it(
    backend: AtomicRedisBackend, find: Find, server: RedisServer, task_id: str
) -> None:
    wrong = backend.prepare(f"{task_id}-wrong", 1, states.SUCCESS)
    server.client.rpush(wrong.key, "a list, where a state should be")
    good = [backend.prepare(f"{task_id}-{n}", n, states.SUCCESS) for n in range(2)]
    first, refusal, last = backend.write([good[0], wrong, good[1]])
    assert (first, last) == (None, None)
    assert "WRONGTYPE" in str(refusal)
    assert [find(f"{task_id}-{n}").get() for n in range(2)] == [0, 1]


def _announce(backend: AtomicRedisBackend, task_id: str, since: str) -> None:
    write = backend.prepare(task_id, {"pid": 1}, states.STARTED, since=since)
    assert backend.write([write]) == [None]


@pytest.mark.parametrize("state", ["REVOKED", "FAILURE"])
def test_a_start_that_is_announced_late_does_not_hide_the_end(
    backend: AtomicRedisBackend, find: Find, task_id: str, state: str
) -> None:
    since = backend.app.now().isoformat()
    backend.store_result(task_id, ValueError("ended"), state)
    _announce(backend, task_id, since)
    assert find(task_id).state == state


@pytest.mark.parametrize("state", ["REVOKED", "FAILURE", "RETRY"])
def test_a_new_start_of_what_ended_before_is_announced(
    backend: AtomicRedisBackend, find: Find, task_id: str, state: str
) -> None:
    backend.store_result(task_id, ValueError("ended"), state)
    _announce(backend, task_id, backend.app.now().isoformat())
    assert find(task_id).state == "STARTED"


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's own writing
def test_other_serializers_are_stored_celerys_way(
    server: RedisServer, find: Find, task_id: str
) -> None:
    app = Celery("yaml", set_as_current=False)
    app.conf.update(result_serializer="yaml", accept_content=["yaml", "json"])
    backend = AtomicRedisBackend(app=app, url=server.url)
    backend.store_result(task_id, "done", states.SUCCESS)
    backend.store_result(task_id, "late", states.STARTED)
    assert backend.get_task_meta(task_id)["result"] == "done"
    backend.client.close()
    app.close()
