"""When a turn is taken to have recovered from a fault."""

import math
from dataclasses import replace

from tests.chaos.records import Disturbance, RowRecord, Tick
from tests.chaos.recovery import late, recoveries, settled_after
from tests.chaos.sample import call, good_record, post

GOOD = good_record()


def recovery_times(record: RowRecord) -> tuple[float, ...]:
    return tuple(recovery.seconds for recovery in recoveries(record))


def test_without_faults_there_is_nothing_to_recover_from() -> None:
    assert recovery_times(GOOD) == ()


def test_a_killed_worker_s_turn_has_recovered_with_its_next_call_anywhere() -> None:
    kill = Disturbance("kill -9", 1.2, math.inf, workers=("w1",))
    calls = (call("s000.00", 1.0), call("s000.00", 16.0, worker="w2"))
    record = replace(GOOD, calls=calls, posts=(), disturbances=(kill,))
    assert recovery_times(record) == (14.8,)


def test_turns_of_other_workers_and_turns_that_had_their_reply_have_nothing_to_recover() -> None:
    kill = Disturbance("kill -9", 5.0, math.inf, workers=("w1",))
    calls = (call("s000.00", 1.0), call("s001.00", 4.0, worker="w2"))
    later = post("s001.00", 9.0, worker="w2")
    record = replace(GOOD, calls=calls, posts=(post("s000.00", 2.1), later), disturbances=(kill,))
    assert recovery_times(record) == ()


def test_an_outage_is_over_for_the_turns_with_the_first_reply_after_it() -> None:
    outage = Disturbance("backend: down", 1.0, 3.0)
    assert recovery_times(replace(GOOD, disturbances=(outage,))) == (GOOD.posts[1].at - 3.0,)


def test_a_turn_that_stood_still_for_too_long_is_late_unless_it_was_struck_again() -> None:
    kill = Disturbance("kill -9", 1.2, math.inf, workers=("w1",))
    calls = (call("s000.00", 1.0), call("s000.00", 16.0, worker="w2"))
    record = replace(GOOD, calls=calls, posts=(), disturbances=(kill,))
    assert late(record, 14.0) == ("s000.00: went on 14.8 s after the fault",)
    assert late(record, 15.0) == ()
    again = replace(kill, at=9.0, workers=("w3",))
    assert late(replace(record, disturbances=(kill, again)), 14.0) == ()


def test_a_beat_is_replaced_with_the_next_tick_of_one_that_can_lead() -> None:
    kill = Disturbance("kill -9", 5.0, math.inf, beat="b1")
    before, stock = Tick("dispatch", "b1", 4.0), Tick("dispatch", "b3", 6.0, stock=True)
    heir = (Tick("standups", "b2", 17.0), Tick("dispatch", "b2", 16.5))
    record = replace(GOOD, disturbances=(kill,), ticks=(before, stock, *heir))
    assert recovery_times(record) == (11.5,)
    assert late(record, 11.0) == ("all: went on 11.5 s after the fault",)
    assert recovery_times(replace(record, ticks=(before, stock))) == ()


def test_a_row_has_settled_with_the_last_reply_after_the_last_fault() -> None:
    outage = Disturbance("backend: down", 1.0, 3.0)
    kill = Disturbance("kill -9", 2.0, math.inf, workers=("w1",))
    last = max(each.at for each in GOOD.posts)
    assert settled_after(replace(GOOD, disturbances=(outage, kill))) == last - 3.0
    assert settled_after(GOOD) is None
    assert settled_after(replace(GOOD, disturbances=(replace(outage, until=99.0),))) is None
