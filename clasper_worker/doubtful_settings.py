"""Settings that a worker starts with, though the operator hardly means them: it warns of each."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from dotenv import dotenv_values

from clasper_worker.errors import ConfigurationError
from clasper_worker.jobs.agents import parse_agents
from clasper_worker.settings import Settings

_OURS = "CLASPER_"
_KNOWN = frozenset(name.upper() for name in Settings.model_fields)
# RFC 7518, section 3.2: a key is at least as long as the hash.
_SECRET_BYTES = {"HS256": 32, "HS384": 48, "HS512": 64}


@dataclass(frozen=True, slots=True)
class Doubt:
    """One setting that is hardly meant so.

    Attributes:
        variable: its name.
        problem: what is wrong with it; never its value.
        fix: what to change.
    """

    variable: str
    problem: str
    fix: str


def configured_names() -> tuple[str, ...]:
    """The names of all variables that the environment and ``.env`` set."""
    return (*os.environ, *dotenv_values(".env", interpolate=False))


def doubtful_settings(settings: Settings, names: Iterable[str]) -> tuple[Doubt, ...]:
    """What to warn of.

    Args:
        settings: as they were read.
        names: of the variables that are set, as `configured_names` tells them.
    """
    unknown = sorted({name.upper() for name in names if name.upper().startswith(_OURS)} - _KNOWN)
    return (
        *(_unknown(name) for name in unknown),
        *_short_secret(settings),
        *_unreadable_agents(settings),
    )


def _unknown(name: str) -> Doubt:
    near = get_close_matches(name, _KNOWN, n=1, cutoff=0.8)
    meant = f"is it {near[0]}? " if near else ""
    return Doubt(name, "is no setting, and does nothing", f"{meant}.env.example has them all")


def _short_secret(settings: Settings) -> tuple[Doubt, ...]:
    needed = _SECRET_BYTES.get(settings.agent_jwt_algorithm)
    if settings.agent_jwt_secret is None or needed is None:
        return ()
    if len(settings.agent_jwt_secret.get_secret_value().encode()) >= needed:
        return ()
    problem = f"is shorter than the {needed} bytes that {settings.agent_jwt_algorithm} needs"
    fix = "set a longer one, here and in your backend: whoever guesses it acts as any agent"
    return (Doubt("AGENT_JWT_SECRET", problem, fix),)


def _unreadable_agents(settings: Settings) -> tuple[Doubt, ...]:
    try:
        parse_agents(settings.clasper_agents or "")
    except ConfigurationError as exc:
        problem = str(exc).removeprefix("CLASPER_AGENTS: ")
        return (
            Doubt(
                "CLASPER_AGENTS", problem, "mend it: until then nobody has heartbeats or standups"
            ),
        )
    return ()
