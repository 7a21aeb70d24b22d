"""The contract's objects as we read them. Additive fields are ignored (contract Part 1)."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
)

from clasper_worker.text.whole_text import undamaged

# Features that a backend without a capabilities endpoint is taken to have: the required ones.
REQUIRED_FEATURES = frozenset({"tasks", "messages", "documents"})

# By which path a `features_list` may name a feature.
_PATHS = {
    "tools": "/api/tools",
    "notifications": "/api/mission-control/notifications",
    "agents": "/api/mission-control/agents",
    "heartbeat": "/api/mission-control/heartbeat",
    "standup": "/api/mission-control/standup",
}


Id = Annotated[str, Field(min_length=1), AfterValidator(undamaged)]
"""What a row is known by. With a character that was lost it would name another one."""


def _text_or(default: str) -> BeforeValidator:
    """Null is as if it were not there: backends answer it for a column that was never set."""
    return BeforeValidator(lambda value: default if value is None else value)


def _listed(value: Any) -> Any:
    return () if value is None else value


class _Object(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        coerce_numbers_to_str=True,  # some backends number their tasks
    )


class Capabilities(_Object):
    """What the backend offers; unknown features are kept but mean nothing to us.

    ``features_list``, which the original's backends add, names features and paths: what is in it
    is offered unless ``features`` says no.
    """

    contract_version: Annotated[str, _text_or("v1")] = "v1"
    features: dict[str, bool] = Field(default_factory=dict)
    features_list: tuple[str, ...] = ()

    @field_validator("features", mode="before")
    @classmethod
    def _only_switches(cls, value: Any) -> Any:
        if value is None:
            return {}
        if isinstance(value, list | tuple):  # as some write it: the names of what is on
            return {name: True for name in value if isinstance(name, str)}
        if not isinstance(value, dict):
            return value
        return {name: on for name, on in value.items() if isinstance(on, bool)}

    @field_validator("features_list", mode="before")
    @classmethod
    def _only_names(cls, value: Any) -> Any:
        listed = value if isinstance(value, list | tuple) else ()
        return tuple(name for name in listed if isinstance(name, str))

    def has(self, feature: str) -> bool:
        """Whether the backend offers a feature such as ``history``."""
        listed = bool({feature, _PATHS.get(feature, feature)} & set(self.features_list))
        return self.features.get(feature, listed)

    @cached_property
    def offered(self) -> frozenset[str]:
        """What an agent can make use of: required features unless they are switched off."""
        names = {*self.features, *self.features_list, *_PATHS}
        required = {name for name in REQUIRED_FEATURES if self.features.get(name, True)}
        return frozenset(required | {name for name in names if self.has(name)})


class Task(_Object):
    """A Mission Control task."""

    id: Id
    title: str = Field(repr=False)
    status: Annotated[str, _text_or("")] = ""
    description: str | None = Field(default=None, repr=False)


class Message(_Object):
    """A message in a task's thread, as far as the turn needs it."""

    id: Id
    task_id: str
    content: str = Field(repr=False)
    actor_type: Annotated[str, _text_or("user")] = "user"
    agent_role: str | None = None


class Document(_Object):
    """A document attached to a task."""

    id: Id
    title: Annotated[str, _text_or("")] = Field(default="", repr=False)
    doc_type: str | None = None
    task_id: str | None = None


class Page(_Object):
    """One page of a list; ``next_cursor`` leads to the next one, where it has text.

    Rows are not looked at here. Null for ``items`` is a list without any, as some languages
    write it.
    """

    items: Annotated[tuple[Any, ...], BeforeValidator(_listed)] = Field(repr=False)
    next_cursor: str | None = None
