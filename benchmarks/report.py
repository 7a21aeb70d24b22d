"""The results as Markdown tables, and where they stand in the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

BEGIN = "<!-- bench:begin -->"
END = "<!-- bench:end -->"

WAYS = {
    "asyncio_1": "asyncio pool, 1 process",
    "asyncio_2": "asyncio pool, 2 processes",
    "direct": "the same turn without Celery",
    "bare_http": "its three HTTP calls alone, by the same client",
    "bare_aiohttp": "its three HTTP calls alone, by aiohttp",
    "prefork": "Celery's prefork pool, `-c 8`",
    "threads": "Celery's threads pool, `-c 100`",
}
ENQUEUES = {
    "send_task": "`send_task`",
    "send_task_with_results": "`send_task`, sender with a result backend",
    "shim_1_caller": "shim, 1 caller",
    "shim_16_callers": "shim, 16 callers",
}
CURVES = {
    "queue": "turns waiting in the queue",
    "history_in_request": "earlier messages, in the request",
    "history_from_backend": "earlier messages, read from the backend",
    "skills": "skills in the workspace",
}


def markdown(results: Mapping[str, Any]) -> str:
    """All tables of a run; measures that were left out have none."""
    parts = [_machine(results["machine"])]
    for name, table in (
        ("throughput", _throughput),
        ("in_flight", _in_flight),
        ("latency", _latency),
        ("enqueue", _enqueue),
        ("growth", _growth),
        ("notifications", _notifications),
        ("fan_out", _fan_out),
        ("streaming", _streaming),
        ("listeners", _listeners),
    ):
        if name in results:
            parts.append(table(results[name]))
    return "\n\n".join(parts)


def put_into(document: Path, text: str) -> None:
    """Replace what stands between the markers of a document.

    Raises:
        ValueError: it has no markers.
    """
    content = document.read_text("utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{document.name} has no {BEGIN} … {END}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", "utf-8")


def _machine(machine: Mapping[str, Any]) -> str:
    versions = machine["versions"]
    return (
        f"{machine['date']}, {machine['cores']} cores ({machine['processor']}), Python"
        f" {machine['python']}, Celery {versions['celery']}, Redis {machine['redis_server']}."
        f" A loop of a million additions took {machine['python_loop_ms']:g} ms of CPU; other"
        f" programs took {machine['foreign_load']:.0%} of the processors during the run."
    )


def _throughput(ways: Mapping[str, Any]) -> str:
    rows = []
    for name, label in WAYS.items():
        if name not in ways:
            continue
        way = ways[name]
        low, high = way["turns_per_second_range"]
        rows.append(
            (
                label,
                f"{way['turns_per_second']:,.0f}",
                f"{low:,.0f} to {high:,.0f}",
                f"{way['cpu_ms_per_turn']:.2f}",
            )
        )
    title = "**Throughput**, model without latency"
    return _table(title, ("way", "turns/s", "batches", "CPU ms a turn"), rows)


def _in_flight(measured: Mapping[str, Any]) -> str:
    rows = []
    for slots, point in measured["points"].items():
        above = point["above_model_ms"]
        memory = point["resident_mb"]
        rows.append(
            (
                f"{int(slots):,}",
                f"{point['turns_per_second']:,.0f}",
                f"{point['turns_per_second_while_full']:,.0f}",
                f"{point['cpu_ms_per_turn']:.2f}",
                f"{memory['plateau']:.0f} / {memory['peak']:.0f}",
                f"{above['p50']:,.0f} / {above['p95']:,.0f} / {above['p99']:,.0f}",
            )
        )
    title = f"**In flight**, one process, model of {measured['model_seconds']:g} s"
    head = (
        "slots (`-c`)",
        "turns/s",
        "while full",
        "CPU ms a turn",
        "MB, plateau / peak",
        "ms above the model's, p50 / p95 / p99",
    )
    return _table(title, head, rows)


def _latency(measured: Mapping[str, Any]) -> str:
    added = measured["added_ms"]
    row = (
        f"{measured['turns_per_second']:g}",
        f"{measured['model_seconds']:g} s",
        *(f"{added[name]:.1f}" for name in ("p50", "p95", "p99", "p100")),
    )
    head = ("turns/s", "model", "p50", "p95", "p99", "most")
    return _table("**Added latency** in ms, one process", head, [row])


def _enqueue(ways: Mapping[str, Any]) -> str:
    rows = [
        (
            label,
            f"{ways[name]['per_second']:,.0f}",
            f"{ways[name]['ms']['p50']:.2f}",
            f"{ways[name]['ms']['p99']:.2f}",
        )
        for name, label in ENQUEUES.items()
    ]
    return _table("**Enqueue**", ("way", "messages/s", "p50 ms", "p99 ms"), rows)


def _growth(curves: Mapping[str, Any]) -> str:
    rows = [
        (
            label,
            f"{int(size):,}",
            f"{point['turns_per_second']:,.0f}",
            f"{point['cpu_ms_per_turn']:.2f}",
        )
        for name, label in CURVES.items()
        for size, point in curves[name].items()
    ]
    return _table("**Growth**, one process", ("of", "size", "turns/s", "CPU ms a turn"), rows)


def _notifications(measured: Mapping[str, Any]) -> str:
    low, high = measured["acknowledged_seconds_range"]
    row = (
        f"{measured['notifications']:,}",
        f"{measured['users']:,}",
        f"{measured['listed_seconds']:.1f}",
        f"{measured['answered_seconds']:.1f}",
        f"{measured['acknowledged_seconds']:.1f}",
        f"{low:.1f} to {high:.1f}",
        f"{measured['least_seconds']:,.0f}",
        f"{measured['one_after_another_seconds']:,.0f}",
        f"{measured['cpu_ms_each']:.1f}",
    )
    head = (
        "notifications",
        "users, one session each",
        "s until the first poll",
        "all answered",
        "all acknowledged",
        "trials",
        "least",
        "one by one",
        "CPU ms each",
    )
    title = (
        f"**Notifications**, {measured['processes']} processes, model of"
        f" {measured['model_seconds']:g} s, seconds from Beat's start"
    )
    return _table(title, head, [row])


def _fan_out(measured: Mapping[str, Any]) -> str:
    row = (
        f"{measured['agents']:,}",
        f"{measured['enqueued']:,}",
        f"{measured['beat_share']:.1%}",
        f"{measured['worker_share']:.1%}",
        f"{measured['idle_worker_share']:.1%}",
        f"{measured['share_of_a_core']:.1%}",
        f"{measured['redis_share']:.1%}",
    )
    head = (
        "agents",
        "heartbeats enqueued",
        "Beat",
        "worker with its ticks",
        "the same, idle",
        "Beat and worker",
        "Redis",
    )
    title = (
        f"**Fan-out** of heartbeats, each agent's once in {measured['interval_seconds']:,} s,"
        f" during {measured['watched_seconds']:g} s, in shares of a core"
    )
    return _table(title, head, [row])


def _streaming(measured: Mapping[str, Any]) -> str:
    first = measured["first_token_ms"]
    row = (
        f"{measured['unstreamed_cpu_ms']:.2f}",
        f"{measured['streamed_cpu_ms']:.2f} ({measured['more_share']:+.0%})",
        f"{measured['each_further_chunk_us']:.0f}",
        f"{measured['streams']}",
        f"{first['p50']:.1f} / {first['p95']:.1f} / {first['p99']:.1f}",
    )
    head = (
        "CPU ms a turn, unstreamed",
        "in 20 chunks",
        "µs each further chunk",
        "streams",
        "first token, ms, p50 / p95 / p99",
    )
    return _table("**Streaming**, one worker process, one shim", head, [row])


def _listeners(measured: Mapping[str, Any]) -> str:
    row = (
        f"{measured['listeners']:,} of {measured['turns']:,} turns",
        f"{measured['cuts']}",
        f"{measured['connections']:,}",
        f"{measured['events']:,}",
        f"{measured['wrong']:,}",
        f"{measured['shim_cpu_seconds']:.0f}",
        f"{measured['shim_mb']:.0f}",
    )
    head = (
        "listeners",
        "cuts each",
        "connections",
        "events",
        "listeners with a wrong, missing or doubled event",
        "s of the shim's CPU",
        "MB",
    )
    title = "**Listeners** of one shim process, which is restarted once meanwhile"
    return _table(title, head, [row])


def _table(title: str, head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("---:" for _ in head[1:])), *rows]
    return "\n".join([f"{title}:", "", *(f"| {' | '.join(line)} |" for line in lines)])
