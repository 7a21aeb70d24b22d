"""Settings that a program starts with, though the operator hardly means them: it warns of each."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import structlog
from dotenv import dotenv_values

from clasper_worker.errors import ConfigurationError
from clasper_worker.jobs.agents import parse_agents
from clasper_worker.settings import Settings

log = structlog.get_logger(__name__)

_OURS = "CLASPER_"
_KNOWN = frozenset(name.upper() for name in Settings.model_fields)
# What other names of ours begin with. They are others' as well: one is doubted only if it is very
# like one of ours that is not set itself.
_FAMILIES = tuple(
    sorted({f"{name.partition('_')[0]}_" for name in _KNOWN if not name.startswith(_OURS)})
)
_LIKE, _VERY_LIKE = 0.8, 0.85
# What other programs and older releases of libraries call it.
_ELSEWHERE = {
    "LLM_MODEL": "LLM_MODEL_DEFAULT",
    "OPENAI_API_BASE": "OPENAI_BASE_URL",
    "OPENAI_KEY": "OPENAI_API_KEY",
    "OPENAI_MODEL": "LLM_MODEL_DEFAULT",
}
# Like ours, and read by others.
_OF_OTHERS = frozenset(
    {
        "CELERY_BROKER_READ_URL",
        "CELERY_BROKER_WRITE_URL",
        "OPENAI_ADMIN_KEY",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
    }
)
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
    return (*os.environ, *dotenv_values(".env", interpolate=False, encoding="utf-8-sig"))


def doubtful_settings(settings: Settings, names: Iterable[str]) -> tuple[Doubt, ...]:
    """What to warn of.

    Args:
        settings: as they were read.
        names: of the variables that are set, as `configured_names` tells them.
    """
    present = {name.upper() for name in names}
    unknown = sorted(name for name in present - _KNOWN if name.startswith(_OURS))
    return (
        *(_unknown(name) for name in unknown),
        *_near_misses(present),
        *_short_secret(settings),
        *_unreadable_agents(settings),
    )


def warn_of_doubtful_settings(settings: Settings) -> None:
    """Log each setting that is hardly meant so; called once when a program starts."""
    for doubt in doubtful_settings(settings, configured_names()):
        log.warning("settings.doubtful", **asdict(doubt))


def _unknown(name: str) -> Doubt:
    near = _nearest(name, _LIKE)
    meant = f"is it {near}? " if near else ""
    return Doubt(name, "is no setting, and does nothing", f"{meant}.env.example has them all")


def _near_misses(present: AbstractSet[str]) -> Iterator[Doubt]:
    for name in sorted(present - _KNOWN - _OF_OTHERS):
        if not name.startswith(_FAMILIES):
            continue
        near = _nearest(name, _VERY_LIKE)
        if near is not None and near not in present:
            yield _unknown(name)


def _nearest(name: str, cutoff: float) -> str | None:
    """The setting that a name is most like."""
    if name in _ELSEWHERE or name.removeprefix(_OURS) in _KNOWN:
        return _ELSEWHERE.get(name) or name.removeprefix(_OURS)
    near = get_close_matches(name, _KNOWN, n=1, cutoff=cutoff)
    return near[0] if near else None


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
