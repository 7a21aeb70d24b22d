"""Capabilities."""

from clasper_worker.conformance.probe import Answer, Probe, require
from clasper_worker.conformance.registry import CheckFailed, check
from clasper_worker.mission_control.transport import CAPABILITIES_PATHS

_FEATURES = (
    "tasks", "messages", "documents", "notifications_dispatch", "events_sse", "heartbeat",
    "standup", "tool_requests",
)  # fmt: skip


async def _ask(probe: Probe) -> Answer:
    answer = await probe.get(CAPABILITIES_PATHS[0])
    return await probe.get(CAPABILITIES_PATHS[1]) if answer.status == 404 else answer


@check(
    "capabilities.version",
    wants="GET …/capabilities (or /api/capabilities) has contract_version v1 or 1.x",
    why="a worker reads from it how to talk to the backend",
)
async def version(probe: Probe) -> None:
    answer = await _ask(probe)
    found = answer.object().get("contract_version")
    require(found == "v1" or str(found).startswith("1."), answer.shown)


@check(
    "capabilities.features",
    wants="`features` maps each name to true or false, and names the contract's eight",
    why="optional endpoints are only called where they are announced",
)
async def features(probe: Probe) -> None:
    answer = await _ask(probe)
    found = answer.object().get("features")
    if not isinstance(found, dict):
        raise CheckFailed(f"no object `features`: {answer.shown}")
    missing = [name for name in _FEATURES if not isinstance(found.get(name), bool)]
    require(not missing, f"not true or false: {', '.join(missing)}")


@check(
    "capabilities.required",
    wants="tasks, messages and documents are true",
    why="without them a turn has nowhere to leave its reply",
)
async def required(probe: Probe) -> None:
    found = (await _ask(probe)).object().get("features")
    off = [name for name in _FEATURES[:3] if not isinstance(found, dict) or not found.get(name)]
    require(not off, f"off: {', '.join(off)}")
