"""Heartbeats give way: they take a session only while it is free, and not from anybody."""

from __future__ import annotations

from tests.unit.engine.queue.turns import Broker, message


def beat(broker: Broker, job: str, user: str = "u", role: str = "r") -> None:
    raw = message("clasper.heartbeat", job=job, user_id=user, agent_role=role)
    broker.push(raw, "clasper.periodic")


def test_a_heartbeat_runs_while_its_session_is_free(broker: Broker) -> None:
    beat(broker, "h")
    delivery = broker.take_one()
    assert (delivery.queue, delivery.verdict) == ("clasper.periodic", "")


def test_a_heartbeat_finds_its_session_busy_and_is_told_so(broker: Broker) -> None:
    broker.send("a")
    broker.take_one()
    beat(broker, "h")
    assert [found.verdict for found in broker.take().deliveries] == ["busy"]


def test_a_second_heartbeat_does_not_interrupt_the_first(broker: Broker) -> None:
    beat(broker, "h1")
    broker.take_one()
    beat(broker, "h2")
    found = broker.take()
    assert found.interrupts == ()
    assert [one.verdict for one in found.deliveries] == ["busy"]


def test_a_turn_interrupts_a_heartbeat_whatever_its_own_policy(broker: Broker) -> None:
    for number, busy in enumerate(("enqueue", "reject", "collect", "interrupt")):
        user = f"u{number}"
        beat(broker, f"h{number}", user)
        heart = broker.take_one()
        broker.send(f"a{number}", user, metadata={"busy": busy})
        found = broker.take()
        assert (found.interrupts, found.deliveries) == ((f"h{number}",), ())
        turn = broker.take(settled=[heart.token]).deliveries[0]
        assert turn.verdict == ""
        broker.take(settled=[turn.token])
    assert broker.left() == set()


def test_turns_behind_the_one_that_interrupted_follow_their_policies(broker: Broker) -> None:
    beat(broker, "h")
    broker.take_one()
    broker.send("a")
    assert broker.take().interrupts == ("h",)
    broker.send("b", metadata={"busy": "reject"})
    found = broker.take()
    assert [one.verdict for one in found.deliveries] == ["busy"]
    assert found.interrupts == ()


def test_a_lane_of_no_depth_still_lets_a_turn_wait_for_a_heartbeat_to_give_way(
    broker: Broker,
) -> None:
    beat(broker, "h")
    broker.take_one()
    broker.send("a")
    found = broker.schedule(lane_depth=0).exchange(free=10)
    assert (found.interrupts, found.deliveries) == (("h",), ())


def test_an_interrupted_heartbeat_whose_worker_dies_does_not_run_again(broker: Broker) -> None:
    beat(broker, "h")
    broker.take_one()
    broker.send("a")
    broker.take()
    broker.lapse()
    broker.schedule().reap()
    assert [one.verdict for one in broker.take().deliveries] == ["cancelled"]


def test_other_sessions_and_other_periodic_jobs_are_left_alone(broker: Broker) -> None:
    beat(broker, "h", role="other")
    broker.take_one()
    broker.send("a")
    broker.push(message("clasper.standup", user_id="u", agent_role="r"), "clasper.periodic")
    found = broker.take()
    assert (found.interrupts, len(found.deliveries)) == ((), 2)
