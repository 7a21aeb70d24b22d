"""Deliveries that no job of the worker holds."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker import state as worker_state

from clasper_worker.engine.pool.job import Callbacks, Job, Limits
from clasper_worker.engine.queue.leftovers import Left, Leftovers
from clasper_worker.engine.queue.orphans import Orphans, ReleaseOrphans


def test_one_that_no_job_has_at_two_looks_is_found_once() -> None:
    orphans = Orphans()
    assert orphans.find({"a#1", "b#1"}, {"b#1"}) == frozenset()
    assert orphans.find({"a#1", "b#1"}, {"b#1"}) == {"a#1"}
    assert orphans.find({"b#1"}, {"b#1"}) == frozenset()


def test_one_whose_job_is_just_ending_is_left_alone() -> None:
    orphans = Orphans()
    orphans.find({"a#1"}, ())
    assert orphans.find((), ()) == frozenset()
    assert orphans.find({"a#1"}, ()) == frozenset()


class _Request:
    def __init__(self, token: str, job: Job | None = None) -> None:
        self.message = SimpleNamespace(delivery_tag=token)
        self._apply_result = None if job is None else lambda: job


class _Keeper:
    def __init__(self, *tokens: str) -> None:
        self.tokens = dict.fromkeys(tokens)
        self.left = Leftovers()

    def held(self) -> tuple[str, ...]:
        return tuple(self.tokens)

    def drop(self, tokens: list[str]) -> None:
        for token in tokens:
            del self.tokens[token]

    def leave(self, left: Left) -> None:
        self.left.leave(left)


def _job(pid: int) -> Job:
    return Job(pid, lambda: None, (), Callbacks(), Limits(), lambda _: None)


def test_orphans_are_released_and_named_and_all_that_jobs_hold_is_kept(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    running, over = _job(1), _job(2)
    active = {_Request("running#1", running), _Request("over#1", over)}
    monkeypatch.setattr(worker_state, "active_requests", active)
    monkeypatch.setattr(worker_state, "reserved_requests", {_Request("handed-over#1")})
    monkeypatch.setattr(worker_state, "scheduled_requests", {_Request("later#1")})
    limited = SimpleNamespace(contents=[(_Request("limited#1"), 1)])
    forgotten: list[str] = []
    qos = SimpleNamespace(forget=forgotten.extend)
    keeper = _Keeper("running#1", "over#1", "handed-over#1", "later#1", "limited#1", "lost#1")
    consumer: Any = SimpleNamespace(
        lease_keeper=keeper,
        task_buckets=OrderedDict(a=limited, b=None),
        pool=SimpleNamespace(holds=lambda job: job is running),
        connection=SimpleNamespace(transport=SimpleNamespace(channels=[SimpleNamespace(qos=qos)])),
        timer=None,
    )
    step = ReleaseOrphans(consumer)
    step._look(consumer)
    assert not keeper.left.take()
    step._look(consumer)
    assert keeper.left.take() == Left([], ["lost#1", "over#1"], [], [])
    assert forgotten == ["lost#1", "over#1"]
    assert set(keeper.held()) == {"running#1", "handed-over#1", "later#1", "limited#1"}
    assert "releasing 2 deliveries that no job here holds: lost, over" in caplog.text
