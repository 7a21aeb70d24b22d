"""Turns a second against a model without latency, and what else could carry them out."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

from plan import Plan
from processes import HERE, BenchmarkError
from rig import Batch, Rig
from turns import check_posts, make_turns

CONCURRENCY = 100
"""Turns at a time in one process, however they are carried out; but for prefork's processes."""
_ROUNDS = 5  # a batch has so many turns for each slot at least: it shows the steady state

_POOLS = {
    "prefork": ["-P", "prefork", "-c", "8"],
    "threads": ["-P", "threads", "-c", str(CONCURRENCY)],
}
_WITHOUT_CELERY = ("direct", "bare_http", "bare_aiohttp")


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every way, one after the other."""
    rig.behave()
    ways: dict[str, Any] = {}

    def note(name: str, batches: Sequence[Batch]) -> None:
        ways[name] = _summary(batches)
        say(
            f"{name}: {ways[name]['turns_per_second']:,.0f} turns/s,"
            f" {ways[name]['cpu_ms_per_turn']:.2f} ms CPU a turn"
        )

    def under_celery(name: str, processes: int, options: Sequence[str] = ()) -> None:
        with rig.workers(processes, options, warm_up=plan.warm_up) as workers:
            fewest = _ROUNDS * CONCURRENCY * processes if processes > 1 else 0
            batches = [
                rig.run(workers, rig.turns_for(plan.batch_seconds, fewest))
                for _ in range(plan.batches)
            ]
            note(name, batches)

    for count in (1, 2):
        under_celery(f"asyncio_{count}", count, ["-c", str(CONCURRENCY)])
    for how in _WITHOUT_CELERY:
        note(how, _without_celery(rig, how, plan))
    if plan.compare:
        for name, options in _POOLS.items():
            under_celery(name, 1, options)
    return ways


def _summary(batches: Sequence[Batch]) -> dict[str, Any]:
    """The median batch, and how far they lie apart."""
    rates = [batch.per_second for batch in batches]
    costs = [batch.cpu_ms for batch in batches]
    last = batches[-1]
    return {
        "turns": sum(batch.turns for batch in batches),
        "batches": len(batches),
        "turns_per_second": round(statistics.median(rates), 1),
        "turns_per_second_range": [round(min(rates), 1), round(max(rates), 1)],
        "cpu_ms_per_turn": round(statistics.median(costs), 3),
        "cpu_ms_per_turn_range": [round(min(costs), 3), round(max(costs), 3)],
        "others_cpu_ms_per_turn": {name: round(ms, 3) for name, ms in last.others.items()},
        "backend_calls_per_turn": {
            name: round(calls / last.turns, 3) for name, calls in last.calls.items()
        },
    }


def _without_celery(rig: Rig, how: str, plan: Plan) -> list[Batch]:
    """Run ``direct.py`` on batches of turns: the same turn, or its HTTP calls alone."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "direct.py"), how, str(CONCURRENCY)],
        env=rig.environment(),
        cwd=rig.folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    batches: list[Batch] = []
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(plan.batches + 1):
            turns = rig.turns_for(plan.batch_seconds) if number else make_turns(plan.warm_up)
            rig.behave()
            process.stdin.write(json.dumps([turn.token for turn in turns]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise BenchmarkError(f"direct.py {how} ended with {process.wait()}")
            took = json.loads(answer)
            batch = Batch(len(turns), took["seconds"], took["cpu"])
            batch.calls = rig.backend.ask("counts")["calls"]
            rig.faults.add(check_posts(turns, rig.backend.ask("posts")))
            rig.last_rate = batch.per_second
            batches.append(batch)
        process.stdin.close()
    return batches[1:]  # the first was to warm up
