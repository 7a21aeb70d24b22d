"""Lists over several pages."""

from typing import Any

from clasper_worker.conformance.probe import MARK, MESSAGES, TASKS, Probe, require
from clasper_worker.conformance.registry import CheckSkipped, check

_GAP = "a task that is not found is created again, and its conversation is lost"


def _own_tenant(probe: Probe) -> None:
    if not probe.signs:
        raise CheckSkipped("set AGENT_JWT_SECRET: this check counts in a tenant of its own")


async def _made(probe: Probe) -> list[str]:
    _own_tenant(probe)
    return [await probe.task(f"page {number}") for number in range(7)]


def _ids(items: list[dict[str, Any]]) -> list[str]:
    return [str(one.get("id")) for one in items]


@check(
    "pagination.limit",
    wants="a page has at most `limit` items",
    why="memory of the worker is bounded",
)
async def limit(probe: Probe) -> None:
    await _made(probe)
    answer = await probe.get(TASKS, limit=3)
    require(0 < len(answer.items()) <= 3, f"{len(answer.items())} items for limit=3")


@check("pagination.gaps", wants="following next_cursor gives every task", why=_GAP)
async def gaps(probe: Probe) -> None:
    made = await _made(probe)
    missing = set(made) - set(_ids(await probe.all(TASKS, limit=3)))
    require(not missing, f"{len(missing)} of {len(made)} tasks are on no page")


@check("pagination.doubles", wants="following next_cursor gives no task twice", why=_GAP)
async def doubles(probe: Probe) -> None:
    await _made(probe)
    found = _ids(await probe.all(TASKS, limit=3))
    require(len(found) == len(set(found)), f"{len(found) - len(set(found))} came twice")


@check(
    "pagination.end", wants="the last page has no next_cursor", why="a worker would page for ever"
)
async def end(probe: Probe) -> None:
    _own_tenant(probe)
    await probe.task()
    answer = await probe.get(TASKS, limit=50)
    require(not answer.object().get("next_cursor"), f"one task, and: {answer.shown}")


@check("pagination.growing", wants="a task made meanwhile moves none off its page", why=_GAP)
async def growing(probe: Probe) -> None:
    made = await _made(probe)
    first = await probe.get(TASKS, limit=3)
    following = first.object().get("next_cursor")
    require(bool(following), f"no next_cursor with 7 tasks and limit=3: {first.shown}")
    await probe.task("made meanwhile")
    found = _ids(first.items())
    while following:
        page = await probe.get(TASKS, limit=3, cursor=following)
        found += _ids(page.items())
        following = page.object().get("next_cursor")
    found = [one for one in found if one in made]
    require(
        sorted(found) == sorted(made), f"{len(found)} of {len(made)}, {len(set(found))} different"
    )


@check(
    "pagination.messages",
    feature="history",
    wants="a task's messages follow each other over pages without gaps or doubles",
    why="the model would read a conversation with holes",
)
async def messages(probe: Probe) -> None:
    task = await probe.task()
    sent = [
        (await probe.post(MESSAGES, task_id=task, content=f"{MARK} {n}")).made() for n in range(5)
    ]
    found = _ids(await probe.all(MESSAGES, task_id=task, limit=2))
    require(found == sent, f"sent {sent}, listed {found}")
