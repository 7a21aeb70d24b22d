"""Running the checks side by side, within a time."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import httpx2
from pydantic import ValidationError

from clasper_worker.conformance import checks
from clasper_worker.conformance.daemon_executor import DaemonExecutor
from clasper_worker.conformance.probe import Probe, require
from clasper_worker.conformance.registry import CHECKS, Check, CheckFailed, CheckSkipped
from clasper_worker.conformance.target import Target
from clasper_worker.errors import BackendUnavailableError, ConfigurationError
from clasper_worker.mission_control.models import Capabilities
from clasper_worker.mission_control.transport import CAPABILITIES_PATHS

checks.load()
_FEATURES = {one.feature for one in CHECKS.values() if one.feature is not None}
_REQUEST_SECONDS = 5.0
_CHECK_SECONDS = 12.0
_TOTAL_SECONDS = 22.0
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
        ConfigurationError: there is no check of a name.
        BackendUnavailableError: nothing answers there, or its name is not resolved in time.
    """
    names = set(only)
    if unknown := sorted(names - set(CHECKS)):
        raise ConfigurationError(f"No check is named {', '.join(unknown)}: docs/conformance.md")
    chosen = [one for name, one in CHECKS.items() if not names or name in names]
    # Each new connection looks the name up: one that hangs must not keep the process from ending.
    asyncio.get_running_loop().set_default_executor(DaemonExecutor())
    await _look_up(target.host)
    run = secrets.token_hex(4)
    limits = asyncio.Semaphore(_AT_ONCE)
    deadline = time.monotonic() + _TOTAL_SECONDS
    async with httpx2.AsyncClient(base_url=target.url, timeout=_REQUEST_SECONDS) as client:
        try:
            async with asyncio.timeout(_REQUEST_SECONDS):
                features = await _features(client, target, run)
        except TimeoutError:
            features = {}

        async def one(check: Check) -> Outcome:
            async with limits:
                began = time.monotonic()
                seconds = min(_CHECK_SECONDS, deadline - began)
                status, came = await _try(check, Probe(client, target, run, features), seconds)
                return Outcome(check, status, came, time.monotonic() - began)

        return tuple(await asyncio.gather(*(one(check) for check in chosen)))


async def _look_up(host: str) -> None:
    try:
        async with asyncio.timeout(_REQUEST_SECONDS):
            with contextlib.suppress(OSError, UnicodeError):  # the first request says which
                await asyncio.get_running_loop().getaddrinfo(host, None)
    except TimeoutError:
        raise BackendUnavailableError(
            f"The name {host} was not resolved within {_REQUEST_SECONDS:.0f} s: check"
            " CONTROL_PLANE_URL and this machine's name server"
        ) from None


async def _features(client: httpx2.AsyncClient, target: Target, run: str) -> Mapping[str, Any]:
    try:
        await client.get("/health")
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as exc:
        raise BackendUnavailableError(
            f"Nothing answers at {client.base_url.host}: check CONTROL_PLANE_URL, or start the"
            " backend"
        ) from exc
    except (httpx2.HTTPError, httpx2.InvalidURL):
        pass  # the checks say what is wrong
    probe = Probe(client, target, run, {})
    for path in CAPABILITIES_PATHS:
        try:
            found = Capabilities.model_validate((await probe.get(path)).object())
        except (CheckFailed, ValidationError):
            continue
        return {name: found.has(name) for name in _FEATURES}
    return {}


async def _try(
    check: Check, probe: Probe, seconds: float
) -> tuple[Literal["passed", "failed", "skipped"], str]:
    if check.feature is not None and probe.features.get(check.feature) is not True:
        return "skipped", f"the backend does not announce the feature {check.feature}"
    try:
        require(seconds > 0, f"not tried: the checks before it took {_TOTAL_SECONDS:.0f} s")
        async with asyncio.timeout(seconds):
            await check.run(probe)
    except CheckSkipped as exc:
        return "skipped", str(exc)
    except CheckFailed as exc:
        return "failed", probe.hide(str(exc))
    except TimeoutError:
        return "failed", f"no end within {seconds:.0f} s"
    except Exception as exc:  # noqa: BLE001 - an answer of any shape fails its check alone
        return "failed", f"an answer that the check cannot read ({type(exc).__name__})"
    return "passed", ""
