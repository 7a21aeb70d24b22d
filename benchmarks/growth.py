"""What a turn costs as the queue, the conversation and the workspace grow."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from plan import Plan
from processes import Worker, cpu_seconds, wait_until_idle
from rig import Rig
from servers import history_text
from turns import check_posts, make_turns

_RAMP = 100
"""Turns at the head of a long queue that are not counted."""
_SPARE = 2_000
"""Turns that the worker may have fetched, or carried out before we look: twice what it fetches."""


def measure(rig: Rig, plan: Plan, say: Callable[[str], None]) -> dict[str, Any]:
    """Measure each curve."""
    curves: dict[str, dict[str, Any]] = {}

    def note(curve: str, size: int, per_second: float, cpu_ms: float) -> None:
        point = {"turns_per_second": round(per_second, 1), "cpu_ms_per_turn": round(cpu_ms, 3)}
        curves.setdefault(curve, {})[str(size)] = point
        say(f"{curve} {size:,}: {per_second:,.0f} turns/s, {cpu_ms:.2f} ms CPU a turn")

    rig.behave()
    seconds = plan.batch_seconds
    with rig.workers(warm_up=plan.warm_up) as workers:
        for size in plan.queues:
            count = len(rig.turns_for(seconds))
            note("queue", size, *_head_of_a_queue(rig, workers, size, count))
        for size in plan.histories:
            batch = rig.run(workers, rig.turns_for(seconds), history=_conversation(size))
            note("history_in_request", size, batch.per_second, batch.cpu_ms)
    rig.behave(history=0)  # what the backend offers is remembered: a new worker asks anew
    with rig.workers(warm_up=plan.warm_up) as workers:
        for size in plan.histories:
            rig.behave(history=size)
            batch = rig.run(workers, rig.turns_for(seconds))
            note("history_from_backend", size, batch.per_second, batch.cpu_ms)
    rig.behave()
    for size in plan.skills:
        folder = _workspace(rig.folder / f"workspace-{size}", size)
        variables = {"CLASPER_WORKSPACE": str(folder)}
        with rig.workers(warm_up=plan.warm_up, variables=variables) as workers:
            batch = rig.run(workers, rig.turns_for(seconds))
            note("skills", size, batch.per_second, batch.cpu_ms)
    return curves


def _head_of_a_queue(
    rig: Rig, workers: list[Worker], length: int, count: int
) -> tuple[float, float]:
    """Turns a second and CPU milliseconds a turn while the queue is at least so long.

    The rest is taken away afterwards, and together with what was carried out must be all.
    """
    turns = make_turns(length + _RAMP + count + _SPARE)
    ids = rig.backlog.fill(turns)
    rig.behave()
    worker = workers[0].stats
    rig.backlog.release()
    rig.wait_for_posts(_RAMP, workers)
    began = int(rig.backend.ask("counts")["posts"])
    cpu = cpu_seconds(worker)
    rig.wait_for_posts(began + count, workers)
    ended = int(rig.backend.ask("counts")["posts"])
    cpu = cpu_seconds(worker) - cpu
    if rig.backlog.length() < length:
        rig.faults.notes.append(f"the queue fell below {length} before the end of its measure")
    left = set(rig.backlog.take_back())
    done = {name: turn for name, turn in ids.items() if name not in left}
    rig.wait_for_posts(len(done), workers)
    wait_until_idle([worker])
    posts = rig.backend.ask("posts")
    rig.faults.add(check_posts(done.values(), posts))
    rig.faults.add(rig.backlog.check_results(done))
    rig.backlog.forget(done)
    stamps = sorted(stamp for stamp, *_ in posts)
    return (ended - began) / (stamps[ended - 1] - stamps[began - 1]), cpu / (ended - began) * 1000


def _conversation(size: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[n % 2], "content": history_text(n)} for n in range(size)]


def _workspace(folder: Path, skills: int) -> Path:
    """A workspace with so many skills, each of the size that skills have."""
    folder.mkdir()
    (folder / "SOUL.md").write_text("You help a team with its projects, plainly and briefly.\n")
    (folder / "AGENTS.md").write_text("Say what you did, and what you could not do.\n")
    for number in range(skills):
        skill = folder / "skills" / f"area-{number}"
        skill.mkdir(parents=True)
        (skill / "SKILL.md").write_text(
            f"---\nname: area-{number}\n"
            f"description: How the work of area {number} is planned, done and handed over.\n---\n"
            + "\n".join(
                f"{step}. In area {number}, do step {step} as agreed." for step in range(30)
            )
        )
    return folder
