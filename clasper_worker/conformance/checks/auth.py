"""Who gets in."""

import time

from clasper_worker.conformance.probe import DOCUMENTS, MARK, MESSAGES, TASKS, Probe
from clasper_worker.conformance.registry import check

_ANOTHER = "not-the-secret-" * 4
_WHY = "whoever reaches the backend could read and write as any tenant"


async def _refused(probe: Probe, token: str | None) -> None:
    # A backend that refuses everybody has not looked at this token.
    (await probe.get(TASKS, limit=1)).has(200)
    (await probe.call("GET", TASKS, token=token)).has(401)


@check("auth.accepted", wants="a good X-Agent-Token is accepted (200)", why="no turn could run")
async def accepted(probe: Probe) -> None:
    (await probe.get(TASKS, limit=1)).has(200)


@check("auth.missing", wants="a read without X-Agent-Token is 401", why=_WHY)
async def missing(probe: Probe) -> None:
    await _refused(probe, None)


@check("auth.missing_write", wants="each create without X-Agent-Token is 401", why=_WHY)
async def missing_write(probe: Probe) -> None:
    task = await probe.task()
    text = f"{MARK} unsigned"
    for path, body in (
        (TASKS, {"title": text}),
        (MESSAGES, {"task_id": task, "content": text}),
        (DOCUMENTS, {"task_id": task, "title": text, "content": text}),
    ):
        (await probe.call("POST", path, body, token=None)).has(401)


@check("auth.garbage", wants="a token that is no JWT is 401", why="a 500 would be retried for long")
async def garbage(probe: Probe) -> None:
    for token in ("x", "a.b.c", "..", "Bearer x"):
        await _refused(probe, token)


@check("auth.wrong_secret", wants="a token signed with another secret is 401", why=_WHY)
async def wrong_secret(probe: Probe) -> None:
    await _refused(probe, probe.forge(secret=_ANOTHER))


@check("auth.expired", wants="an expired token is 401", why="a token that leaked would never end")
async def expired(probe: Probe) -> None:
    await _refused(probe, probe.forge(exp=int(time.time()) - 3600))


@check("auth.alg_none", wants="a token with `alg: none` is 401", why=_WHY)
async def alg_none(probe: Probe) -> None:
    await _refused(probe, probe.forge(algorithm="none"))


@check(
    "auth.type",
    wants="a token whose `type` is not `agent` is 401",
    why="a person's session token would pass for an agent's",
)
async def type_(probe: Probe) -> None:
    for kind in ("user", None):
        await _refused(probe, probe.forge(type=kind))


@check(
    "auth.no_user",
    wants="a token without `user_id` is 401",
    why="a query that is scoped to nobody may show everybody",
)
async def no_user(probe: Probe) -> None:
    await _refused(probe, probe.forge(user_id=None))
