"""Turns that interrupt the one before them (busy policies ``interrupt`` and ``rollback``)."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from clasper_worker.engine.queue.delivery import ROLLS_BACK_HEADER
from clasper_worker.engine.queue.exchange import payload_of
from clasper_worker.engine.queue.identity import turn_id_for
from tests.unit.engine.queue.turns import Broker, job_of, jobs_of, message

INTERRUPT: dict[str, Any] = {"metadata": {"busy": "interrupt"}}


def test_a_second_one_while_the_first_still_waits_names_the_running_turn_again(
    broker: Broker,
) -> None:
    broker.send("a")
    running = broker.take_one()
    named: list[Any] = []
    for job in ("b", "c"):
        broker.send(job, **INTERRUPT)
        named += broker.take(0).interrupts
    assert named == ["a", "a"]
    (first,) = broker.take(settled=[running.token]).deliveries
    assert (job_of(first), first.verdict) == ("b", "")
    (second,) = broker.take(settled=[first.token]).deliveries
    assert (job_of(second), second.verdict) == ("c", "")


def test_a_second_one_interrupts_the_first_that_runs_by_then(broker: Broker) -> None:
    broker.send("a")
    running = broker.take_one()
    broker.send("b", **INTERRUPT)
    (first,) = broker.take(settled=[running.token]).deliveries
    broker.send("c", **INTERRUPT)
    assert broker.take(0).interrupts == ("b",)
    (second,) = broker.take(settled=[first.token]).deliveries
    assert (job_of(second), second.verdict) == ("c", "")


@pytest.mark.parametrize("how", ["never started", "lost its worker"])
def test_one_whose_turn_it_is_but_that_nobody_runs_is_delivered_as_cancelled(
    broker: Broker, how: str
) -> None:
    broker.send("a")
    if how == "never started":
        broker.take(0)
    else:
        broker.lapse(broker.take_one().token)
        broker.schedule().reap()
    broker.send("b", **INTERRUPT)
    (first,) = broker.take().deliveries
    assert (job_of(first), first.verdict) == ("a", "cancelled")
    (second,) = broker.take(settled=[first.token]).deliveries
    assert (job_of(second), second.verdict) == ("b", "")


def test_what_had_ended_is_neither_named_nor_remembered(broker: Broker) -> None:
    broker.send("a")
    running = broker.take_one()
    broker.send("b", **INTERRUPT)
    found = broker.take(settled=[running.token])
    assert (found.interrupts, jobs_of(found.deliveries)) == ((), ["b"])
    broker.take(0, settled=[found.deliveries[0].token])
    assert broker.left() == set()


def test_one_for_which_the_lane_is_full_interrupts_nothing(broker: Broker) -> None:
    broker.send("a")
    broker.send("b")
    running = broker.take_one()
    broker.send("c", **INTERRUPT)
    found = broker.schedule(lane_depth=1).exchange(free=1)
    assert found.interrupts == ()
    assert [(job_of(one), one.verdict) for one in found.deliveries] == [("c", "lane_full")]
    assert broker.schedule().refresh([running.token]) == ()


def test_a_combined_turn_is_interrupted_as_one(broker: Broker) -> None:
    for job in "abc":
        broker.send(job, metadata={"busy": "collect"})
    group = broker.take_one()
    assert len(group.collected) == 2
    broker.send("d", **INTERRUPT)
    assert broker.take(0).interrupts == ("a",)
    assert broker.jobs(settled=[group.token]) == ["d"]


@pytest.mark.parametrize("how", ["asked for", "configured"])
def test_one_that_rolls_back_is_delivered_with_the_job_and_the_turn_that_it_stopped(
    broker: Broker, how: str
) -> None:
    """Each time that it is delivered."""
    if how == "configured":
        broker.rules = replace(broker.rules, busy="rollback")
        asked: dict[str, Any] = {}
    else:
        asked = {"metadata": {"busy": "rollback"}}
    broker.send("a", idempotency_key="k")
    running = broker.take_one()
    broker.send("b", **asked)
    assert broker.take(0).interrupts == ("a",)
    (first,) = broker.take(settled=[running.token]).deliveries
    expected = ["a", turn_id_for("u", "k", "a")]
    assert (job_of(first), json.loads(first.rolls_back)) == ("b", expected)
    broker.lapse(first.token)
    broker.schedule().reap()
    again = broker.take_one()
    assert (job_of(again), json.loads(again.rolls_back)) == ("b", expected)
    assert payload_of(again)["headers"][ROLLS_BACK_HEADER] == expected


def test_two_that_come_while_one_is_being_stopped_both_name_it(broker: Broker) -> None:
    broker.send("a")
    token = broker.take_one().token
    for job in "bc":
        broker.send(job, metadata={"busy": "rollback"})
        broker.take(0)
    for job in "bc":
        (found,) = broker.take(settled=[token]).deliveries
        assert (job_of(found), json.loads(found.rolls_back)[0]) == (job, "a")
        token = found.token


@pytest.mark.parametrize("busy", ["interrupt", "enqueue", "rollback"])
def test_one_that_stopped_nothing_or_only_interrupts_names_nothing(
    broker: Broker, busy: str
) -> None:
    """Not even where its sender says that it does."""
    said = {ROLLS_BACK_HEADER: ["x", "y"]}
    if busy != "rollback":
        broker.send("a")
        running = broker.take_one()
    kwargs: dict[str, Any] = {
        "user_id": "u",
        "agent_role": "r",
        "message": "Hi",
        "metadata": {"busy": busy},
    }
    broker.push(message(job="b", headers=said, **kwargs))
    if busy != "rollback":
        broker.take(0, settled=[running.token])
    (found,) = broker.take().deliveries
    assert (job_of(found), found.rolls_back) == ("b", b"")
    assert ROLLS_BACK_HEADER not in payload_of(found)["headers"]


def test_the_same_turn_asked_for_again_is_not_rolled_back(broker: Broker) -> None:
    asked: dict[str, Any] = {"idempotency_key": "k", "metadata": {"busy": "rollback"}}
    broker.send("a", **asked)
    running = broker.take_one()
    broker.send("b", **asked)
    assert broker.take(0).interrupts == ()
    (again,) = broker.take(settled=[running.token]).deliveries
    assert (job_of(again), again.rolls_back) == ("b", b"")
