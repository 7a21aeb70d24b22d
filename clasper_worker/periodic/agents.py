"""Who has heartbeats and standups, and when each one's turn is within an interval."""

from __future__ import annotations

import asyncio
import hashlib
import time as clocks
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import structlog
import yaml

from clasper_worker.config.groups import PeriodicGroup
from clasper_worker.config.local_time import ActiveHours, check_timezone
from clasper_worker.engine.queue.identifiers import check_user_id, clean_identifier
from clasper_worker.errors import BackendError, BackendUnavailableError, ConfigurationError
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.prompt.roles import validate_role
from clasper_worker.text.whole_text import is_damaged
from clasper_worker.turn.request import DEFAULT_ROLE

_LISTED_SECONDS = 45.0  # within which the backend has to list its agents
_KEPT_SECONDS = (30.0, 300.0)  # what the backend says of its agents, from few to very many
_KEPT_SECONDS_PER_AGENT = 0.1
_FILE_ENDS = (".yaml", ".yml")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Agent:
    """One agent of one user.

    Attributes:
        user_id: whose.
        agent_role: in which role.
        timezone: IANA name; None for the operator's.
        active_hours: as ``HH:MM-HH:MM``; None for the operator's.
        place: where it stands among all agents, from 0 up to 1: the same on every machine.
    """

    user_id: str
    agent_role: str = DEFAULT_ROLE
    timezone: str | None = None
    active_hours: str | None = None
    place: float = 0.0

    @property
    def name(self) -> str:
        """A short name for notes and ids, made of the user and the role."""
        text = f"{len(self.user_id)}:{self.user_id}:{self.agent_role}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Self:
        """Check an entry ``{user_id, agent_role?, timezone?, active_hours?}``.

        Raises:
            ValueError: says which field is wrong.
        """
        user = fields.get("user_id")
        user = clean_identifier(user) if isinstance(user, str) else ""
        if not user:
            raise ValueError("user_id: must be a plain, non-empty text")
        if is_damaged(user):
            raise ValueError("user_id: holds half of a surrogate pair, or U+FFFD")
        role = clean_identifier(str(fields.get("agent_role") or "")) or DEFAULT_ROLE
        zone, hours = fields.get("timezone") or None, fields.get("active_hours") or None
        for name, value, check in (
            ("user_id", user, check_user_id),
            ("agent_role", role, validate_role),
            ("timezone", zone, check_timezone),
            ("active_hours", hours, ActiveHours.parse),
        ):
            if value is None:
                continue
            try:
                check(str(value))
            except ValueError as exc:
                raise ValueError(f"{name}: {exc}") from None
        agent = cls(user, role, zone and str(zone), hours and str(hours))
        return replace(agent, place=int(agent.name[:12], 16) / 16**12)


def parse_agents(text: str) -> tuple[Agent, ...]:
    """Read ``CLASPER_AGENTS``: ``user:role[@timezone]``, comma separated, or a YAML file's path.

    The file is a list of such texts, or of mappings of an agent's fields.

    Raises:
        ConfigurationError: names the entry that is wrong.
    """
    if text.strip().endswith(_FILE_ENDS):
        return _parse_file(Path(text.strip()))
    return _read(part.strip() for part in text.split(",") if part.strip())


def _parse_file(path: Path) -> tuple[Agent, ...]:
    try:
        entries = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as exc:
        raise _wrong(f"{path} cannot be read as YAML ({type(exc).__name__})") from None
    if not isinstance(entries, list):
        raise _wrong(f"{path} is not a list of agents")
    return _read(entries)


def _read(entries: Iterable[Any]) -> tuple[Agent, ...]:
    agents: dict[str, Agent] = {}
    for number, entry in enumerate(entries, start=1):
        try:
            agent = Agent.of(entry if isinstance(entry, Mapping) else _fields(str(entry)))
        except ValueError as exc:
            raise _wrong(f"entry {number}: {exc}") from None
        agents[agent.name] = agent
    return tuple(agents.values())


def _fields(text: str) -> dict[str, Any]:
    # From the right: a user id may hold colons and at signs, a role and a zone may not.
    user, colon, rest = text.rpartition(":")
    if not colon:
        raise ValueError("must be user:role or user:role@timezone, such as u1:writer@Europe/Berlin")
    role, _, zone = rest.partition("@")
    return {"user_id": user, "agent_role": role, "timezone": zone}


def _wrong(problem: str) -> ConfigurationError:
    return ConfigurationError(f"CLASPER_AGENTS: {problem}", {"variable": "CLASPER_AGENTS"})


def _kept_for(agents: int) -> float:
    least, most = _KEPT_SECONDS
    return min(max(least, agents * _KEPT_SECONDS_PER_AGENT), most)


class Roster:
    """The agents: of ``CLASPER_AGENTS``, else of ``USER_ID``, else those that the backend lists.

    Args:
        settings: the operator's.
        backend: under the internal token.
        clock: monotonic seconds, for how long the backend's list is kept.
    """

    def __init__(
        self,
        settings: PeriodicGroup,
        backend: InternalBackend,
        *,
        clock: Callable[[], float] = clocks.monotonic,
    ) -> None:
        self._settings = settings
        self._backend = backend
        self._clock = clock
        self._listed: tuple[tuple[Agent, ...] | None, float] | None = None

    async def agents(self) -> tuple[Agent, ...] | None:
        """All agents; None where nothing says who they are.

        Raises:
            ConfigurationError: ``CLASPER_AGENTS`` or ``AGENT_ROLE`` is wrong.
            BackendError: the backend did not list them.
        """
        settings = self._settings
        if settings.clasper_agents:
            if self._listed is None:
                self._listed = (parse_agents(settings.clasper_agents), 0.0)
            return self._listed[0]
        if settings.user_id:
            try:
                one = Agent.of({"user_id": settings.user_id, "agent_role": settings.agent_role})
            except ValueError as exc:
                raise ConfigurationError(f"AGENT_ROLE: {exc}", {"variable": "AGENT_ROLE"}) from None
            return (one,)
        if self._listed is None or self._listed[1] <= self._clock():
            listed = await self._list_or_keep()
            self._listed = (listed, self._clock() + _kept_for(len(listed or ())))
        return self._listed[0]

    async def _list_or_keep(self) -> tuple[Agent, ...] | None:
        """The backend's list; while it does not answer, the one from before."""
        try:
            async with asyncio.timeout(_LISTED_SECONDS):
                return await self._list()
        except (TimeoutError, BackendError) as exc:
            if self._listed is None:
                if isinstance(exc, BackendError):
                    raise
                raise BackendUnavailableError(
                    "The backend did not list its agents in time"
                ) from exc
            log.warning("agents.not_listed", error=type(exc).__name__)
            return self._listed[0]

    async def _list(self) -> tuple[Agent, ...] | None:
        if not self._backend.has_token or not await self._backend.has("agents"):
            return None
        agents: dict[str, Agent] = {}
        async for item in self._backend.agents():
            try:
                agent = Agent.of(item)
            except ValueError as exc:
                log.warning("agents.malformed", problem=str(exc))
                continue
            agents[agent.name] = agent
        return tuple(agents.values())
