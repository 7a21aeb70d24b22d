"""What ``clasper doctor`` looks at: each probe is a function that yields findings."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Literal

import httpx2
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from clasper_worker.cli.status import read_status
from clasper_worker.client import ClasperClient
from clasper_worker.config.names import QUEUES, VERSIONS_COMMAND
from clasper_worker.config.settings import Settings
from clasper_worker.engine.redis.connections import blocking_client, shown_url
from clasper_worker.engine.redis.doubts import redis_doubts
from clasper_worker.errors import ClasperError
from clasper_worker.llm.messages import ChatMessage
from clasper_worker.llm.providers.catalogue import model_chain, providers_without_key
from clasper_worker.llm.providers.registry import connect_providers
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.transport import CAPABILITIES_PATHS
from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import this_host
from clasper_worker.runtime import check_settings
from clasper_worker.startup_checks import configured_names, doubtful_settings

SECONDS = 4.0  # for one question of a probe
_SKEW_SECONDS = 5.0
_BEAT_LAG_SECONDS = 15.0
_FULL = 0.9
_OLDEST_REDIS = (6, 2)
_BEAT = "clasper:redbeat:"
_SCHEMES = ("redis://", "rediss://", "sentinel://")


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found.

    Attributes:
        part: what was looked at.
        level: how bad it is.
        what: what was found, without secrets.
        fix: what to do; empty where it is ok.
    """

    part: str
    level: Literal["ok", "warning", "problem"]
    what: str
    fix: str = ""


def configuration(settings: Settings) -> Iterator[Finding]:
    """What a worker would refuse to start with, and what is hardly meant so."""
    try:
        check_settings(settings)
        yield Finding("configuration", "ok", "a worker would start with these settings")
    except ClasperError as exc:
        yield Finding("configuration", "problem", str(exc), "set the variable that it names")
    for doubt in doubtful_settings(settings, configured_names()):
        yield Finding("configuration", "warning", f"{doubt.variable} {doubt.problem}", doubt.fix)


def _client(url: str, settings: Settings) -> Any:
    return blocking_client(
        url,
        settings,
        socket_timeout=SECONDS,
        socket_connect_timeout=SECONDS,
        retry=Retry(NoBackoff(), 0),
    )


def redis_servers(settings: Settings) -> Iterator[Finding]:
    """The broker's Redis, and that of our own state where it is another."""
    urls = {settings.celery_broker_url: "CELERY_BROKER_URL"}
    urls.setdefault(settings.redis_url, "CLASPER_REDIS_URL")
    for url, variable in urls.items():
        if not url.startswith(_SCHEMES):
            yield Finding(
                "redis", "ok", f"{variable} ({shown_url(url)}) is no Redis: not looked at"
            )
            continue
        try:
            with closing(_client(url, settings)) as client:
                yield from _redis(client, f"{variable} ({shown_url(url)})")
        except (redis.RedisError, ClasperError, OSError) as exc:
            what = (
                f"{variable} ({shown_url(url)}) does not answer as it should: {type(exc).__name__}"
            )
            yield Finding("redis", "problem", what, f"start Redis there, or correct {variable}")


def _redis(client: Any, where: str) -> Iterator[Finding]:
    try:
        key = "clasper:doctor"
        client.set(key, "1", px=1000)
        client.eval("return redis.call('DEL', KEYS[1])", 1, key)
    except redis.ResponseError as exc:
        what = f"{where}: our scripts and keys are refused ({str(exc).partition(' ')[0]})"
        yield Finding("redis", "problem", what, "give the user the rights in docs/redis.md")
    info = client.info()
    version = str(info.get("redis_version", ""))
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _OLDEST_REDIS:
        yield Finding("redis", "problem", f"{where} is version {version}", "run Redis 6.2 or newer")
    else:
        yield Finding("redis", "ok", f"{where} answers, version {version}")
    for doubt in redis_doubts(info):
        yield Finding("redis", "warning", f"{where}: {doubt.problem}", doubt.fix)
    most, used = int(info.get("maxmemory") or 0), int(info.get("used_memory") or 0)
    if most and used > most * _FULL:
        what = f"{where} uses {used / most:.0%} of its memory: it will refuse new work when full"
        yield Finding("redis", "warning", what, "raise maxmemory")
    try:
        seconds, micros = client.time()
    except redis.ResponseError:
        return
    yield from _skew("redis", where, seconds + micros / 1e6)


def _skew(part: str, where: str, theirs: float) -> Iterator[Finding]:
    skew = theirs - time.time()
    if abs(skew) > _SKEW_SECONDS:
        what = (
            f"the clock of {where} is {skew:+.0f} s from ours: tokens and leases end at wrong times"
        )
        yield Finding(part, "warning", what, "synchronise both clocks (NTP)")


def workers(settings: Settings) -> Iterator[Finding]:
    """Who works and in which version, what waits, and queues that nobody consumes."""
    status = read_status(settings, 1.0)
    if not status.workers:
        level: Literal["problem", "warning"] = (
            "problem" if status.verdict == "no_workers" else "warning"
        )
        yield Finding("workers", level, "no worker answers", "start one: clasper worker")
        return
    client = ClasperClient.from_settings(settings)
    try:
        # Ends as soon as all have answered.
        ask = client.app.control.inspect(timeout=1.0, limit=len(status.workers))
        answer = ask.active_queues() or {}
        versions = ask._request(VERSIONS_COMMAND) or {}  # noqa: SLF001 - as its own methods do
    finally:
        client.close()
    for name in status.workers:
        yield Finding("workers", "ok", f"{name} answers{_versions(versions.get(name))}")
    consumed = {queue["name"] for queues in answer.values() for queue in queues}
    for name in QUEUES:
        if answer and name not in consumed:
            what = f"no worker consumes the queue {name}"
            yield Finding("workers", "problem", what, f"start a worker with -Q {name}")
    for circuit in status.circuits:
        what = f"all workers leave {circuit.host} alone ({circuit.why}, {circuit.seconds:.0f} s)"
        yield Finding("workers", "warning", what, "see whether that host works")
    if status.queues is not None and status.queues.dead:
        what = f"{status.queues.dead} dead letters"
        yield Finding("workers", "warning", what, "look at them: clasper dead-letters list")


def _versions(answer: Any) -> str:
    if not isinstance(answer, dict):
        return ""  # a worker of another app, or of an earlier version
    return "".join(f", {what} {str(answer[what])[:40]}" for what in answer)


def beat(settings: Settings) -> Iterator[Finding]:
    """Whether a Beat holds redbeat's lock, and enqueues what is due."""
    with closing(_client(settings.redis_url, settings)) as client:
        alive = client.exists(f"{_BEAT}:lock")
        first = client.zrange(f"{_BEAT}:schedule", 0, 0, withscores=True)
    if not alive:
        what = "no Beat runs: no notifications, heartbeats and standups"
        yield Finding("beat", "warning", what, "start one: clasper beat (or clasper worker -B)")
        return
    lag = max(0.0, time.time() - first[0][1]) if first else 0.0
    if lag > _BEAT_LAG_SECONDS:
        what = f"Beat is {lag:.0f} s behind its schedule"
        yield Finding("beat", "problem", what, "restart it; see its log")
    else:
        yield Finding("beat", "ok", f"a Beat runs, {lag:.0f} s behind")


def backend(settings: Settings) -> Iterator[Finding]:
    """Whether the backend answers, accepts our token, and has a supported contract version."""
    if settings.backend_url is None or settings.agent_jwt_secret is None:
        yield Finding("backend", "problem", "not asked", "set BACKEND_URL and AGENT_JWT_SECRET")
        return
    identity = AgentIdentity(settings.user_id or "clasper", settings.agent_role or "clasper")
    headers = {"X-Agent-Token": AgentTokens.from_settings(settings).token_for(identity)}
    try:
        with httpx2.Client(
            base_url=settings.backend_url, headers=headers, timeout=SECONDS
        ) as client:
            answer = client.get(CAPABILITIES_PATHS[0])
            if answer.status_code == httpx2.codes.NOT_FOUND:
                answer = client.get(CAPABILITIES_PATHS[1])
    except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
        what = f"the backend does not answer: {type(exc).__name__}"
        yield Finding("backend", "problem", what, "start it, or correct BACKEND_URL")
        return
    if "date" in answer.headers:
        try:
            theirs = parsedate_to_datetime(answer.headers["date"]).timestamp()
        except ValueError:
            theirs = time.time()
        yield from _skew("backend", "the backend", theirs)
    if answer.status_code in {401, 403}:
        fix = "set AGENT_JWT_SECRET (and …_ALGORITHM) to what the backend verifies with"
        what = f"the backend refuses our token ({answer.status_code})"
        yield Finding("backend", "problem", what, fix)
        return
    if answer.status_code == httpx2.codes.NOT_FOUND:
        what = f"no {CAPABILITIES_PATHS[0]}: only tasks, messages and documents are assumed"
        yield Finding("backend", "warning", what, "add it (docs/backend-contract.md)")
        return
    try:
        found = answer.json() if answer.status_code == httpx2.codes.OK else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("features"), dict):
        what = f"capabilities: {answer.status_code}, and no object `features`"
        yield Finding("backend", "problem", what, "see what it lacks: clasper conformance")
        return
    on = ", ".join(str(name)[:40] for name, there in found["features"].items() if there)
    version = str(found.get("contract_version"))[:20]
    known = version == "v1" or version.startswith("1.")
    yield Finding(
        "backend",
        "ok" if known else "warning",
        f"contract {version}; features: {on[:400]}",
        "" if known else "contract v1 is supported: clasper conformance",
    )


def workspace(settings: Settings) -> Iterator[Finding]:
    """Whether it can be read, and what its author should fix."""
    reader = WorkspaceReader(settings.clasper_workspace.absolute(), this_host())
    snapshot = reader.read(reader.look())
    roles = [name.split("/")[1].removesuffix(".md") for name in snapshot.files if "souls/" in name]
    what = f"roles: {', '.join(roles) or 'none of their own'}; skills: {len(snapshot.skills)}"
    yield Finding("workspace", "ok", what)
    for warning in snapshot.warnings:
        yield Finding("workspace", "warning", str(warning), f"edit {warning.file}")


def model_key(settings: Settings) -> Iterator[Finding]:
    """Whether there is a model and a key to ask it with."""
    names = ", ".join(ref.name for ref in model_chain(settings))
    lacking = providers_without_key(settings)
    for provider in lacking:
        fix = f"set {provider.key_variables[0]}"
        yield Finding("model", "problem", f"no key of {provider.name} for {names}", fix)
    if not lacking:
        yield Finding("model", "ok", f"configured: {names} (asked only with --model)")


def model_call(settings: Settings) -> Iterator[Finding]:
    """One short call of the first model."""
    ref = model_chain(settings)[0]

    short = {"clasper_llm_max_output_tokens": 16, "clasper_llm_timeout_sec": SECONDS}

    async def ask() -> None:
        clients = connect_providers(settings.model_copy(update=short))
        try:
            model = clients[ref.provider].model(ref, None)
            await model.complete([ChatMessage(role="user", content="Answer: ok")])
        finally:
            for client in clients.values():
                await client.close()

    try:
        asyncio.run(ask())
    except ClasperError as exc:
        yield Finding("model", "problem", f"{ref.name}: {exc}", "see the provider's status and key")
    else:
        yield Finding("model", "ok", f"{ref.name} answers")
