"""The same request under the same key has one effect and one answer."""

import asyncio
from functools import partial
from typing import Any

from clasper_worker.conformance.probe import DOCUMENTS, MARK, MESSAGES, TASKS, Probe, require
from clasper_worker.conformance.registry import check

_REPEAT = "the same request under the same key gets the original response"
_CONFLICT = "a different request under a used key is 409"
_TWICE = "a worker that retries would post twice"
_LOST = "a new reply would silently vanish under an old key"


async def _body(probe: Probe, path: str) -> dict[str, Any]:
    body: dict[str, Any] = {"idempotency_key": probe.key()}
    if path == TASKS:
        return {**body, "title": f"{MARK} once"}
    body |= {"task_id": await probe.task(), "content": f"{MARK} once"}
    return {**body, "title": f"{MARK} once"} if path == DOCUMENTS else body


async def _repeat(probe: Probe, path: str) -> None:
    body = await _body(probe, path)
    first, second = await probe.post(path, **body), await probe.post(path, **body)
    first.made()
    require(second.body == first.body, f"first {first.shown}; then {second.shown}")


async def _conflict(probe: Probe, path: str) -> None:
    body = await _body(probe, path)
    (await probe.post(path, **body)).made()
    changed = "title" if path == TASKS else "content"
    (await probe.post(path, **{**body, changed: f"{MARK} different"})).has(409)


async def _together(probe: Probe, path: str) -> None:
    body = await _body(probe, path)
    # Open connections first, so that the requests arrive together.
    await asyncio.gather(*(probe.get(TASKS, limit=1) for _ in range(8)))
    answers = await asyncio.gather(*(probe.post(path, **body) for _ in range(8)))
    made = {answer.made() for answer in answers}
    require(len(made) == 1, f"8 clients at the same moment made {len(made)}")


_CREATES = (("task", TASKS), ("message", MESSAGES), ("document", DOCUMENTS))

for _name, _path in _CREATES:
    check(f"idempotency.{_name}_repeat", wants=f"{_name.title()}s: {_REPEAT}", why=_TWICE)(
        partial(_repeat, path=_path)
    )
for _name, _path in _CREATES:
    check(f"idempotency.{_name}_conflict", wants=f"{_name.title()}s: {_CONFLICT}", why=_LOST)(
        partial(_conflict, path=_path)
    )
for _name, _path in _CREATES[:2]:
    check(
        f"idempotency.{_name}_together",
        wants=f"8 equal requests at the same moment make one {_name}",
        why=_TWICE,
    )(partial(_together, path=_path))


@check("idempotency.one_effect", wants="a repeated task is in the list once", why=_TWICE)
async def one_effect(probe: Probe) -> None:
    body = {**await _body(probe, TASKS), "title": f"{MARK} once {probe.key()}"}
    for _ in range(2):
        (await probe.post(TASKS, **body)).made()
    found = [one for one in await probe.all(TASKS) if one.get("title") == body["title"]]
    require(len(found) == 1, f"it is in the list {len(found)} times")


@check(
    "idempotency.per_tenant",
    wants="another tenant may use the same key; it gets a response of its own",
    why="one tenant would be shown what another created",
)
async def per_tenant(probe: Probe) -> None:
    other, body = probe.other(), await _body(probe, TASKS)
    mine = (await probe.post(TASKS, **body)).made()
    theirs = await other.post(TASKS, **body)
    require(theirs.made() != mine, f"the same task: {theirs.shown}")


@check(
    "idempotency.without_key",
    wants="equal requests without a key are two",
    why="a person who says the same twice means it twice",
)
async def without_key(probe: Probe) -> None:
    made = {(await probe.post(TASKS, title=f"{MARK} twice")).made() for _ in range(2)}
    require(len(made) == 2, "both got the same task")
