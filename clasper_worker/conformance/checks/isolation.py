"""What a tenant sees and reaches of another: nothing."""

from clasper_worker.conformance.probe import BASE, DOCUMENTS, MARK, MESSAGES, TASKS, Probe, require
from clasper_worker.conformance.registry import check

_WHY = "one customer's conversations would be seen or changed by another"


@check("isolation.list", wants="a tenant's list has no task of another", why=_WHY)
async def listed(probe: Probe) -> None:
    other = probe.other()
    theirs = await other.task("theirs")
    require(theirs not in {one.get("id") for one in await probe.all(TASKS)}, f"{theirs} is listed")


@check("isolation.message", wants="a message to another tenant's task is 404 (or 403)", why=_WHY)
async def message(probe: Probe) -> None:
    theirs = await probe.other().task("theirs")
    (await probe.post(MESSAGES, task_id=theirs, content=f"{MARK} intruder")).has(403, 404)


@check("isolation.document", wants="a document for another tenant's task is 404 (or 403)", why=_WHY)
async def document(probe: Probe) -> None:
    theirs = await probe.other().task("theirs")
    body = {"title": f"{MARK} intruder", "content": "x"}
    (await probe.post(DOCUMENTS, task_id=theirs, **body)).has(403, 404)


@check("isolation.body", wants="a `user_id` in the body does not change whose a task is", why=_WHY)
async def body(probe: Probe) -> None:
    other = probe.other()
    answer = await probe.post(TASKS, title=f"{MARK} for another", user_id=other.user)
    require(answer.status < 500, answer.shown)
    if answer.status < 400:
        theirs = {one.get("id") for one in await other.all(TASKS)}
        require(answer.made() not in theirs, f"the other tenant has it: {answer.shown}")


async def _history(probe: Probe, path: str, **more: str) -> None:
    other = probe.other()
    theirs = await other.task("theirs")
    (await other.post(path, task_id=theirs, content=f"{MARK} private", **more)).made()
    for params in ({"task_id": theirs}, {}):
        answer = await probe.get(path, **params)
        if answer.status not in {400, 403, 404}:
            require(not answer.items(), f"another tenant's: {answer.shown}")


@check(
    "isolation.messages",
    feature="history",
    wants="another tenant's messages are not shown",
    why=_WHY,
)
async def messages(probe: Probe) -> None:
    await _history(probe, MESSAGES)


@check(
    "isolation.documents",
    feature="history",
    wants="another tenant's documents are not shown",
    why=_WHY,
)
async def documents(probe: Probe) -> None:
    await _history(probe, DOCUMENTS, title=f"{MARK} private")


@check("isolation.cursor", wants="another tenant's next_cursor shows none of its tasks", why=_WHY)
async def cursor(probe: Probe) -> None:
    other = probe.other()
    theirs = {await other.task(f"theirs {number}") for number in range(4)}
    following = (await other.get(TASKS, limit=2)).object().get("next_cursor")
    if following:
        answer = await probe.get(TASKS, limit=2, cursor=following)
        require(answer.status < 500, answer.shown)
        if answer.status < 400:
            seen = theirs & {str(one.get("id")) for one in answer.items()}
            require(not seen, f"another tenant's: {answer.shown}")


@check(
    "isolation.heartbeat",
    feature="heartbeat",
    wants="a heartbeat for another tenant's user_id is 403",
    why=_WHY,
)
async def heartbeat(probe: Probe) -> None:
    (await probe.post(f"{BASE}/heartbeat", user_id=probe.other().user)).has(400, 403, 404)


@check(
    "isolation.standup",
    feature="standup",
    wants="a standup for another tenant's user_id is 403",
    why=_WHY,
)
async def standup(probe: Probe) -> None:
    body = {"user_id": probe.other().user, "timezone": "UTC"}
    (await probe.post(f"{BASE}/standup", **body)).has(400, 403, 404)
