"""Configured times that contradict each other: no worker, Beat or shim starts with such.

A limit that can never strike, or a memory that is shorter than what it has to outlast, is found
out at the start rather than by the first turn that it hurts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from difflib import get_close_matches

import structlog
from dotenv import dotenv_values

from clasper_worker.config.settings import Settings
from clasper_worker.config.usable_urls import refuse_unusable_urls
from clasper_worker.errors import ConfigurationError
from clasper_worker.periodic.agents import parse_agents
from clasper_worker.webhooks.backoff import RetrySchedule


@dataclass(frozen=True, slots=True)
class Contradiction:
    """Two settings that cannot both be meant.

    Attributes:
        variables: the names of both.
        values: what they are, in seconds.
        problem: what is wrong with that, both values included.
        fix: what to change.
    """

    variables: tuple[str, str]
    values: tuple[float, float]
    problem: str
    fix: str


@dataclass(frozen=True, slots=True)
class _Order:
    """Of two times one has to be the shorter.

    Attributes:
        shorter: the field that has to be.
        longer: the other field.
        otherwise: what happens if it is not.
        may_equal: whether they may be equally long.
        gives_way: a field of the two whose default gives way without harm: unless the operator set
            it, there is nothing to object to.
    """

    shorter: str
    longer: str
    otherwise: str
    may_equal: bool = True
    gives_way: str | None = None


_HARD = "clasper_turn_hard_limit_sec"
_ORDERS = (
    _Order(
        "clasper_turn_soft_limit_sec",
        _HARD,
        "a turn would be stopped for good before it could say that it ran out of time",
        may_equal=False,
    ),
    _Order(
        "clasper_outage_wait_sec",
        "clasper_turn_soft_limit_sec",
        "a turn would end before its wait for a model or backend that is down does",
        may_equal=False,
    ),
    _Order(
        _HARD,
        "clasper_result_ttl_sec",
        "the state of a turn would be forgotten while the turn still runs",
    ),
    _Order(
        "clasper_llm_timeout_sec",
        _HARD,
        "a turn would be stopped before its model call times out",
        gives_way="clasper_llm_timeout_sec",
    ),
    _Order(
        "clasper_backend_timeout_sec",
        _HARD,
        "a turn would be stopped before its call of the backend times out",
        gives_way="clasper_backend_timeout_sec",
    ),
    _Order(
        "clasper_visibility_timeout_sec",
        _HARD,
        "a killed worker's turn would wait longer to be taken up again than a turn may take",
        gives_way="clasper_visibility_timeout_sec",
    ),
    _Order(
        "dispatch_min_interval_sec",
        "dispatch_max_interval_sec",
        "the shortest pause between polls would be longer than the longest",
        gives_way="dispatch_max_interval_sec",
    ),
)
# What stands for a field that need not be set.
_DERIVED: dict[str, Callable[[Settings], float]] = {
    "clasper_outage_wait_sec": lambda settings: settings.outage_wait_sec,
}
_WEBHOOKS = ("clasper_webhook_attempts", "clasper_webhook_backoff_sec")


def contradictions(settings: Settings) -> tuple[Contradiction, ...]:
    """All contradictions among the configured times; none where they agree."""
    found = [_contradiction(settings, order) for order in _ORDERS]
    found.append(_webhooks_outlast_results(settings))
    return tuple(item for item in found if item is not None)


def refuse_contradictions(settings: Settings) -> None:
    """Check that the configured times agree, and that turns can run over the URLs.

    Raises:
        ConfigurationError: they do not, or cannot; names the variables of each contradiction,
            their values and the fix. ``details["contradictions"]`` lists the same.
    """
    refuse_unusable_urls(settings)
    found = contradictions(settings)
    if not found:
        return
    text = "; ".join(f"{item.problem}: {item.fix}" for item in found)
    raise ConfigurationError(
        f"These settings contradict each other: {text}",
        {
            "variable": found[0].variables[0],
            "contradictions": [
                {"variables": list(item.variables), "values": list(item.values), "fix": item.fix}
                for item in found
            ],
        },
    )


def _contradiction(settings: Settings, order: _Order) -> Contradiction | None:
    if order.gives_way is not None and order.gives_way not in settings.model_fields_set:
        return None
    shorter, longer = (_seconds(settings, field) for field in (order.shorter, order.longer))
    if shorter < longer or (order.may_equal and shorter == longer):
        return None
    low, high = order.shorter.upper(), order.longer.upper()
    relation = "is not below" if not order.may_equal else "is more than"
    return Contradiction(
        variables=(low, high),
        values=(shorter, longer),
        problem=f"{low} ({shorter:g} s) {relation} {high} ({longer:g} s), so {order.otherwise}",
        fix=f"lower {low} or raise {high}",
    )


def _seconds(settings: Settings, field: str) -> float:
    derived = _DERIVED.get(field)
    return float(derived(settings) if derived else getattr(settings, field))


def _webhooks_outlast_results(settings: Settings) -> Contradiction | None:
    if not settings.model_fields_set.intersection(_WEBHOOKS):
        return None
    attempts, ttl = settings.clasper_webhook_attempts, settings.clasper_result_ttl_sec
    span = RetrySchedule.from_settings(settings).span
    if span <= ttl:
        return None
    problem = (
        f"CLASPER_WEBHOOK_ATTEMPTS ({attempts}, over {span:g} s) go on for longer than"
        f" CLASPER_RESULT_TTL_SEC ({ttl} s), so a webhook could tell of a turn whose result is"
        " forgotten"
    )
    return Contradiction(
        variables=("CLASPER_WEBHOOK_ATTEMPTS", "CLASPER_RESULT_TTL_SEC"),
        values=(span, float(ttl)),
        problem=problem,
        fix="lower CLASPER_WEBHOOK_ATTEMPTS or raise CLASPER_RESULT_TTL_SEC",
    )


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
# Were settings once; what they set is fixed.
_RETIRED = frozenset(
    {
        "CLASPER_AGENT_TOKEN_TTL_SEC",
        "CLASPER_BACKEND_ATTEMPTS",
        "CLASPER_HISTORY_LIMIT",
        "CLASPER_LLM_RETRIES",
        "CLASPER_MAX_HISTORY_MESSAGES",
        "CLASPER_MAX_MESSAGE_CHARS",
        "CLASPER_OUTAGE_FAILURES",
        "CLASPER_RETRY_AFTER_MAX_SEC",
    }
)
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
    if name in _RETIRED:
        return Doubt(name, "is no setting any more: its value is fixed", "remove it")
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
                "CLASPER_AGENTS", problem, "fix it: until then nobody has heartbeats or standups"
            ),
        )
    return ()
