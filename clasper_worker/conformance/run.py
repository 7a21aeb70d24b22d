"""Running the checks side by side, within a time."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx2

from clasper_worker.conformance import checks
from clasper_worker.conformance.probe import BASE, Probe
from clasper_worker.conformance.registry import CHECKS, Check, CheckFailed, CheckSkipped
from clasper_worker.conformance.target import Target
from clasper_worker.errors import BackendUnavailableError

checks.load()
_REQUEST_SECONDS = 5.0
_CHECK_SECONDS = 12.0
_TOTAL_SECONDS = 26.0
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a check ended.

    Attributes:
        check: which.
        status: how.
        came: what came instead, or why it was skipped.
        seconds: how long it took.
    """

    check: Check
    status: Literal["passed", "failed", "skipped"]
    came: str
    seconds: float


async def run_checks(target: Target, only: Iterable[str] = ()) -> tuple[Outcome, ...]:
    """Try a backend; half a minute at most.

    Args:
        target: the backend.
        only: names of checks; none means all.

    Raises:
        BackendUnavailableError: nothing answers there.
    """
    names = set(only)
    chosen = [one for name, one in CHECKS.items() if not names or name in names]
    run = secrets.token_hex(4)
    limits = asyncio.Semaphore(_AT_ONCE)
    deadline = time.monotonic() + _TOTAL_SECONDS
    async with httpx2.AsyncClient(base_url=target.url, timeout=_REQUEST_SECONDS) as client:
        features = await _features(client, target, run)

        async def one(check: Check) -> Outcome:
            async with limits:
                began = time.monotonic()
                seconds = min(_CHECK_SECONDS, deadline - began)
                status, came = await _try(check, Probe(client, target, run, features), seconds)
                return Outcome(check, status, came, time.monotonic() - began)

        return tuple(await asyncio.gather(*(one(check) for check in chosen)))


async def _features(client: httpx2.AsyncClient, target: Target, run: str) -> Mapping[str, Any]:
    try:
        await client.get("/health")
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
        raise BackendUnavailableError(
            f"Nothing answers at {client.base_url.host}: check CONTROL_PLANE_URL, or start the"
            " backend"
        ) from exc
    except (httpx2.HTTPError, httpx2.InvalidURL):
        pass  # the checks tell
    probe = Probe(client, target, run, {})
    for path in (f"{BASE}/capabilities", "/api/capabilities"):
        try:
            found = (await probe.get(path)).object().get("features")
        except CheckFailed:
            continue
        if isinstance(found, dict):
            return found
    return {}


async def _try(
    check: Check, probe: Probe, seconds: float
) -> tuple[Literal["passed", "failed", "skipped"], str]:
    if check.feature is not None and probe.features.get(check.feature) is not True:
        return "skipped", f"the backend does not announce the feature {check.feature}"
    try:
        async with asyncio.timeout(seconds):
            await check.run(probe)
    except CheckSkipped as exc:
        return "skipped", str(exc)
    except CheckFailed as exc:
        return "failed", str(exc)
    except TimeoutError:
        return "failed", f"no end within {max(0.0, seconds):.0f} s"
    return "passed", ""
