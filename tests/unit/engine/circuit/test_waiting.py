"""A turn that waits at a gate is told so, with the reason."""

import asyncio
from typing import Any

from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.observability.events import (
    ReportedTurn,
    TurnEvents,
    TurnReference,
    running_turn,
)
from tests.unit.engine.circuit.simulation import Host, SharedStore, Worker, at
from tests.unit.engine.circuit.virtual_time import run_virtually


class Waits(TurnEvents):
    """Notes why each turn waited."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, float | None]] = []

    def waiting(self, turn: TurnReference, *, reason: str, seconds: float | None) -> None:
        self.told.append((turn.turn_id, reason, seconds))


async def _turn(worker: Worker, host: Host, waits: Waits, turn_id: str) -> str:
    with running_turn(ReportedTurn(TurnReference(turn_id, "", "", "", "", ""), waits)):
        return await worker.turn(host)


def _told(host: Host, mood_after: float, turns: int = 1, **policy: Any) -> Waits:
    async def main() -> Waits:
        waits = Waits()
        worker = Worker(SharedStore(), GatePolicy(failures=1, **policy))
        changing = asyncio.create_task(at(mood_after, host, "well"))
        answers = await asyncio.gather(
            *(_turn(worker, host, waits, f"t{number}") for number in range(turns))
        )
        assert answers == ["answer"] * turns
        await changing
        await worker.gates.close()
        return waits

    return run_virtually(main())


def test_each_turn_reports_an_outage_once_however_many_probes_it_makes() -> None:
    host = Host("refuses")
    waits = _told(host, 120, turns=5)
    assert sorted(waits.told) == [(f"t{number}", "outage", None) for number in range(5)]
    assert len(host.calls) > 10


def test_a_turn_reports_for_how_long_a_host_wants_to_be_left_alone() -> None:
    waits = _told(Host("limits-named", named=20.0), 10)
    ((turn_id, reason, seconds),) = waits.told
    assert (turn_id, reason) == ("t0", "rate_limit")
    assert seconds is not None
    assert 20 <= seconds <= 22


def test_a_turn_whose_host_is_well_reports_no_wait() -> None:
    assert _told(Host(), 0, turns=20).told == []


def test_what_no_turn_asks_for_waits_all_the_same_and_tells_nobody() -> None:
    async def main() -> str:
        host = Host("refuses")
        worker = Worker(SharedStore(), GatePolicy(failures=1))
        changing = asyncio.create_task(at(5, host, "well"))
        answer = await worker.turn(host)
        await changing
        await worker.gates.close()
        return answer

    assert run_virtually(main()) == "answer"
