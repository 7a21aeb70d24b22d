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
"""Turns, or calls, at a time where they are made without Celery, and under Celery's threads."""


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure every way, one after the other."""
    rig.behave()
    ways: dict[str, Any] = {}

    def note(name: str, batches: Sequence[Batch]) -> None:
        ways[name] = summary(batches)
        say(
            f"{name}: {ways[name]['turns_per_second']:,.0f} turns/s,"
            f" {ways[name]['cpu_ms_per_turn']:.2f} ms CPU a turn"
        )

    for count in (1, 2):
        with rig.workers(count) as workers:
            size = plan.throughput_turns * count
            batches = [rig.run(workers, make_turns(size)) for _ in range(plan.batches)]
            note(f"asyncio_{count}", batches)
    note("direct", _without_celery(rig, "direct", plan))
    note("bare_http", _without_celery(rig, "bare", plan))
    for name, options in (
        ("prefork", ["-P", "prefork", "-c", "8"]),
        ("threads", ["-P", "threads", "-c", str(CONCURRENCY)]),
    ):
        with rig.workers(1, options) as workers:
            size = plan.throughput_turns // 2
            note(name, [rig.run(workers, make_turns(size)) for _ in range(plan.batches)])
    return ways


def summary(batches: Sequence[Batch]) -> dict[str, Any]:
    """The median batch, and how far they lie apart."""
    rates = [batch.per_second for batch in batches]
    last = batches[-1]
    return {
        "turns": sum(batch.turns for batch in batches),
        "batches": len(batches),
        "turns_per_second": round(statistics.median(rates), 1),
        "turns_per_second_range": [round(min(rates), 1), round(max(rates), 1)],
        "cpu_ms_per_turn": round(statistics.median(batch.cpu_ms for batch in batches), 3),
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
    batches = []
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for size in (400, *[plan.throughput_turns] * plan.batches):
            turns = make_turns(size)
            rig.behave()
            process.stdin.write(json.dumps([turn.token for turn in turns]) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
            if not answer:
                raise BenchmarkError(f"direct.py {how} ended with {process.wait()}")
            took = json.loads(answer)
            batch = Batch(size, took["seconds"], took["cpu"])
            batch.calls = rig.backend.ask("counts")["calls"]
            rig.faults.add(check_posts(turns, rig.backend.ask("posts")))
            batches.append(batch)
        process.stdin.close()
    return batches[1:]  # the first was to warm up
