"""The benchmark: ``python benchmarks/run.py``; see ``docs/performance.md``.

A whole run writes ``benchmarks/results.json``, the tables in ``docs/performance.md`` and the
picture beside it. A partial or quick one only prints, unless told where to write. It fails when
any turn failed, or any reply is missing, wrong or there twice.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import enqueue
import fan_out
import growth
import in_flight
import latency
import listeners
import notifications
import streaming
import throughput
from machine import ForeignLoad, describe
from plan import QUICK, Plan
from processes import HERE, ROOT, BenchmarkError, raise_open_files
from report import markdown, put_into
from rig import Rig, open_rig
from turns import Faults

Measure = Callable[[Rig, Plan, Callable[[str], None]], dict[str, Any]]

MEASURES: dict[str, Measure] = {
    "throughput": throughput.measure,
    "in-flight": in_flight.measure,
    "latency": latency.measure,
    "enqueue": enqueue.measure,
    "growth": growth.measure,
    "notifications": notifications.measure,
    "fan-out": fan_out.measure,
    "streaming": streaming.measure,
    "listeners": listeners.measure,
}
RESULTS = HERE / "results.json"
DOCS = ROOT / "docs"


def main() -> int:
    """Run what was asked for; returns the exit code."""
    options = _options()
    if options.render:
        _publish(json.loads(RESULTS.read_text("utf-8")))
        return 0
    chosen = options.only or list(MEASURES)
    raise_open_files()
    began, load = time.monotonic(), ForeignLoad()
    try:
        results, faults = _measure(chosen, QUICK if options.quick else Plan())
    except BenchmarkError as exc:
        print(f"The benchmark could not be carried out: {exc}", file=sys.stderr)
        return 1
    results["machine"]["foreign_load"] = load.share()
    print(f"\n{markdown(results)}\n\nTook {time.monotonic() - began:.0f} s. Checked: {faults}")
    if faults.any:
        print("FAILED: not every turn was carried out once and right.", file=sys.stderr)
        return 1
    if options.output:
        options.output.write_text(_as_json(results), "utf-8")
    elif not options.quick and not options.only:
        RESULTS.write_text(_as_json(results), "utf-8")
        _publish(results)
    return 0


def _measure(chosen: list[str], plan: Plan) -> tuple[dict[str, Any], Faults]:
    with open_rig() as rig:
        results: dict[str, Any] = {"machine": describe(rig.broker.binary)}
        faults = Faults()
        for name in chosen:
            print(f"{name} …", flush=True)
            rig.faults = Faults()
            measured = MEASURES[name](rig, plan, lambda line: print(f"  {line}", flush=True))
            results[name.replace("-", "_")] = measured
            if rig.faults.any:
                print(f"  FAULTS: {rig.faults}", flush=True)
            faults.add(rig.faults)
        return results, faults


def _publish(results: Mapping[str, Any]) -> None:
    """Write the tables and the picture into the documentation."""
    put_into(DOCS / "performance.md", markdown(results))
    try:
        from plot import draw  # noqa: PLC0415 - matplotlib, which may be missing
    except ImportError as exc:
        print(f"No picture: {exc.name} is not installed (extra `bench`).", file=sys.stderr)
        return
    for path in draw(results, DOCS):
        print(f"Wrote {path.relative_to(ROOT)}.")


def _as_json(results: Mapping[str, Any]) -> str:
    return json.dumps(results, indent=2) + "\n"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure Clasper Worker on this machine.")
    parser.add_argument(
        "--only", action="append", choices=list(MEASURES), help="measure this alone; repeatable"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, rough figures")
    parser.add_argument("--output", type=Path, help="write the results there, and nothing else")
    parser.add_argument(
        "--render", action="store_true", help="write tables and picture from results.json anew"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
