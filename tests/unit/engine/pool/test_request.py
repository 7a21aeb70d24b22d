"""Requests that are stopped or have an outcome, never both."""

from __future__ import annotations

import gc
from typing import Any
from weakref import ref

import pytest

from clasper_worker.engine.pool.job import Callbacks, Job, Limits
from clasper_worker.engine.pool.request import CoroutineRequest


class _Pool:
    def __init__(self, *, waiting: bool = False) -> None:
        self.waiting = waiting
        self.terminated: list[int] = []

    def withdraw(self, job: Job) -> bool:
        del job
        return self.waiting

    def terminate_job(self, pid: int, signal: int | None = None) -> None:
        del signal
        self.terminated.append(pid)


class _Request(CoroutineRequest):
    """Without a message, and with the announcements written down."""

    def __init__(self, result: object) -> None:
        self.said: list[str] = []
        self.time_start = 1.0
        self.worker_pid = 7
        self._apply_result = ref(result)

    def _announce_revoked(self, reason: str, terminated: bool, signum: Any, expired: bool) -> None:
        del reason, terminated, signum, expired
        self.said.append("revoked")

    def _announce_cancelled(self, emit_retry: bool = True) -> None:
        del emit_retry
        self.said.append("cancelled")


@pytest.fixture
def stopped() -> list[Job]:
    return []


@pytest.fixture
def job(stopped: list[Job]) -> Job:
    return Job(7, print, ("name", "t1"), Callbacks(), Limits(), stopped.append)


@pytest.mark.parametrize(("act", "said"), [("terminate", "revoked"), ("cancel", "cancelled")])
def test_a_running_job_is_stopped_and_announced(
    job: Job, stopped: list[Job], act: str, said: str
) -> None:
    request = _Request(job)
    getattr(request, act)(_Pool())
    assert request.said == [said]
    assert stopped == [job]
    assert job.is_claimed


@pytest.mark.parametrize("act", ["terminate", "cancel"])
def test_a_job_that_has_an_outcome_is_left_alone(job: Job, stopped: list[Job], act: str) -> None:
    assert job.claim()
    request = _Request(job)
    getattr(request, act)(_Pool())
    assert request.said == []
    assert stopped == []


def test_a_job_that_waits_is_withdrawn_and_announced_at_once(job: Job, stopped: list[Job]) -> None:
    request = _Request(job)
    request.terminate(_Pool(waiting=True))
    assert request.said == ["revoked"]
    assert stopped == []
    assert job.is_claimed


class _OtherResult:
    def __init__(self) -> None:
        self.signals: list[int] = []

    def terminate(self, signal: int) -> None:
        self.signals.append(signal)


@pytest.mark.parametrize(("act", "said"), [("terminate", "revoked"), ("cancel", "cancelled")])
def test_under_another_pool_it_is_celerys_own(act: str, said: str) -> None:
    result, pool = _OtherResult(), _Pool()
    request = _Request(result)
    getattr(request, act)(pool)
    assert request.said == [said]
    assert pool.terminated == [7]
    assert result.signals == [15]


def test_a_job_that_is_gone_is_celerys_own() -> None:
    pool = _Pool()
    request = _Request(_OtherResult())
    gc.collect()
    request.terminate(pool)
    assert request.said == ["revoked"]
