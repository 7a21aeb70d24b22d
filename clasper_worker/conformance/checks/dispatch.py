"""Notifications, their delivery and its acknowledgement."""

from typing import Any

from clasper_worker.conformance.probe import BASE, MARK, OK, Answer, Probe, require
from clasper_worker.conformance.registry import CheckSkipped, check

_PATH = f"{BASE}/dispatch/undelivered"
_FEATURE = "notifications_dispatch"
_USERS = 100


async def _ask(probe: Probe, **params: Any) -> Answer:
    answer = await probe.call("GET", _PATH, internal=True, **params)
    if answer.status in {404, 405}:  # one of the contract's sources has POST
        answer = await probe.call("POST", _PATH, internal=True, **params)
    return answer


async def _notify(probe: Probe) -> str:
    if not probe.signs:
        raise CheckSkipped("set AGENT_JWT_SECRET: nobody's real notifications are touched")
    probe.internal_token()
    answer = await probe.post(f"{BASE}/notifications", content=f"{MARK} notification")
    if answer.status in {403, 404, 405, 501}:
        raise CheckSkipped("this backend has no POST …/notifications to make one to try it with")
    return answer.made()


async def _waiting(probe: Probe, **params: Any) -> list[dict[str, Any]]:
    answer = await _ask(probe, limit_users=_USERS, **params)
    return [one for one in answer.items("deliveries") if one.get("user_id") == probe.user]


async def _acknowledge(probe: Probe, made: str, user: str | None = None) -> Answer:
    path = f"{BASE}/dispatch/notifications/{made}/deliver"
    return await probe.call("POST", path, internal=True, user_id=user or probe.user)


@check(
    "dispatch.shape",
    feature=_FEATURE,
    wants="undelivered gives deliveries[] of notification_id, user_id, session_key and content",
    why="each becomes a turn of that session",
)
async def shape(probe: Probe) -> None:
    made = await _notify(probe)
    found = [one for one in await _waiting(probe) if one.get("notification_id") == made]
    await _acknowledge(probe, made)
    require(len(found) == 1, f"the notification is there {len(found)} times")
    fields = ("notification_id", "user_id", "session_key", "content")
    missing = [name for name in fields if not isinstance(found[0].get(name), str)]
    require(not missing, f"no text: {', '.join(missing)}")


@check(
    "dispatch.acknowledge",
    feature=_FEATURE,
    wants="an acknowledged notification is not undelivered any more",
    why="the agent would be woken by it again and again",
)
async def acknowledge(probe: Probe) -> None:
    made = await _notify(probe)
    before = [one.get("notification_id") for one in await _waiting(probe)]
    (await _acknowledge(probe, made)).has(*OK, 204)
    require(made in before, "it was not there before it was acknowledged")
    left = [one.get("notification_id") for one in await _waiting(probe)]
    require(made not in left, "it is still there")


@check(
    "dispatch.acknowledge_again",
    feature=_FEATURE,
    wants="acknowledging again is harmless (200)",
    why="an acknowledgement is retried when its answer was lost",
)
async def acknowledge_again(probe: Probe) -> None:
    made = await _notify(probe)
    for _ in range(2):
        (await _acknowledge(probe, made)).has(*OK, 204)


@check(
    "dispatch.acknowledge_other",
    feature=_FEATURE,
    wants="an acknowledgement with another user_id changes nothing",
    why="a mix-up of tenants would lose a notification",
)
async def acknowledge_other(probe: Probe) -> None:
    made = await _notify(probe)
    await _acknowledge(probe, made, probe.other().user)
    left = [one.get("notification_id") for one in await _waiting(probe)]
    await _acknowledge(probe, made)
    require(made in left, "it counts as delivered")


@check(
    "dispatch.limit",
    feature=_FEATURE,
    wants="limit_notifications bounds what comes for each user",
    why="one busy user would fill the queue of all",
)
async def limit(probe: Probe) -> None:
    made = [await _notify(probe) for _ in range(3)]
    found = await _waiting(probe, limit_notifications=1)
    for one in made:
        await _acknowledge(probe, one)
    require(len(found) == 1, f"{len(found)} for limit_notifications=1")


@check(
    "dispatch.auth",
    feature=_FEATURE,
    wants="without the internal token, undelivered is 401 (403 with an agent's token)",
    why="an agent would read the notifications of all tenants",
)
async def auth(probe: Probe) -> None:
    for token in (None, probe.token):
        answers = [await probe.call(method, _PATH, token=token) for method in ("GET", "POST")]
        refused = [one.has(401, 403, 404, 405).status in {401, 403} for one in answers]
        require(any(refused), f"neither GET nor POST: {answers[0].shown}")


@check(
    "dispatch.deliver_auth",
    feature=_FEATURE,
    wants="without the internal token, deliver is 401 (403 with an agent's token)",
    why="an agent could make the notifications of others vanish",
)
async def deliver_auth(probe: Probe) -> None:
    path = f"{BASE}/dispatch/notifications/none/deliver"
    for token in (None, probe.token):
        (await probe.call("POST", path, token=token, user_id=probe.user)).has(401, 403)


@check(
    "notifications.list",
    feature="notifications",
    wants="GET notifications gives the tenant's own items[]",
    why="an agent looks there for what waits",
)
async def listed(probe: Probe) -> None:
    answer = await probe.get(f"{BASE}/notifications")
    users = {str(one.get("user_id", probe.user)) for one in answer.items()}
    require(not probe.signs or users <= {probe.user}, f"another tenant's: {answer.shown}")
