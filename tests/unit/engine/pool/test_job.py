"""A job's data and who decides its end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kombu.exceptions import ContentDisallowed
from kombu.serialization import dumps

from clasper_worker.engine.pool.job import Call, Callbacks, Job, Limits
from clasper_worker.engine.pool.result_backend import StateWrite


def _job(stopped: list[Job] | None = None) -> Job:
    return Job(7, print, ("name", "t1"), Callbacks(), Limits(), (stopped or []).append)


def test_of_many_claims_one_succeeds() -> None:
    for _ in range(50):
        job = _job()
        barrier = threading.Barrier(4)

        def claim(job: Job = job, barrier: threading.Barrier = barrier) -> bool:
            barrier.wait()
            return job.claim()

        with ThreadPoolExecutor(4) as threads:
            assert [future.result() for future in [threads.submit(claim) for _ in range(4)]].count(
                True
            ) == 1
        assert job.is_claimed


def test_terminating_stops_a_job_whose_end_is_open_and_only_once() -> None:
    stopped: list[Job] = []
    job = Job(7, print, ("name", "t1"), Callbacks(), Limits(), stopped.append)
    job.terminate()
    job.terminate(15)
    assert stopped == [job]


def test_terminating_leaves_a_decided_job_alone() -> None:
    stopped: list[Job] = []
    job = Job(7, print, ("name", "t1"), Callbacks(), Limits(), stopped.append)
    assert job.claim()
    job.terminate()
    assert stopped == []


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (None, None, Limits(1, 2)),
        (5, None, Limits(5, 2)),
        (None, 6, Limits(1, 6)),
        (5, 6, Limits(5, 6)),
        (0, 0, Limits(1, 2)),
    ],
)
def test_given_limits_override_the_pools(
    soft: float | None, hard: float | None, expected: Limits
) -> None:
    assert Limits(1, 2).overridden(soft, hard) == expected


def _message(payload: Any) -> tuple[Any, ...]:
    content_type, encoding, body = dumps(payload, "json")
    return ("clasper.send", "t1", {"id": "t1", "retries": 1}, body, content_type, encoding)


def test_a_message_is_decoded_once_and_for_all() -> None:
    call = Call.decode(_message([[1], {"b": 2}, {"chain": None, "callbacks": []}]), None)
    assert (call.name, call.task_id, call.args, call.kwargs) == (
        "clasper.send",
        "t1",
        [1],
        {"b": 2},
    )
    again = Call.decode(call.trace_args(), None)
    assert again == call


def test_content_that_is_not_accepted_is_refused() -> None:
    with pytest.raises(ContentDisallowed):
        Call.decode(_message([[], {}, {}]), {"application/x-msgpack"})


def test_the_request_has_the_embedded_fields_and_the_limits_in_force() -> None:
    call = Call.decode(_message([[1], {"b": 2}, {"callbacks": ["later"]}]), None)
    request = call.context(Limits(3, 4))
    assert (request.id, request.retries, request.callbacks) == ("t1", 1, ["later"])
    assert (request.args, request.kwargs) == ([1], {"b": 2})
    assert (request.soft_time_limit, request.time_limit) == (3, 4)
    assert request.called_directly is False
    assert request.as_execution_options()["soft_time_limit"] is None  # a retry has its own


def test_neither_a_call_nor_a_stored_state_shows_what_was_said() -> None:
    call = Call("clasper.send", "t1", {"id": "t1"}, ["secret"], {"message": "secret"}, {})
    write = StateWrite("celery-task-meta-t1", '{"result": "secret"}', 60)
    assert "secret" not in f"{call!r} {write!r}"
    assert "t1" in repr(call)
