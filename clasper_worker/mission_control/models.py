"""The contract's objects as we read them. Additive fields are ignored (contract Part 1)."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

# Features that a backend without a capabilities endpoint is taken to have: the required ones.
REQUIRED_FEATURES = frozenset({"tasks", "messages", "documents"})


class _Object(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        hide_input_in_errors=True,
        coerce_numbers_to_str=True,  # some backends number their tasks
    )


class Capabilities(_Object):
    """What the backend offers; unknown features are kept but mean nothing to us."""

    contract_version: str = "v1"
    features: dict[str, bool] = Field(default_factory=dict)

    @field_validator("features", mode="before")
    @classmethod
    def _only_switches(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: on for name, on in value.items() if isinstance(on, bool)}

    def has(self, feature: str) -> bool:
        """Whether the backend offers a feature such as ``history``."""
        return self.features.get(feature, False)


class Task(_Object):
    """A Mission Control task."""

    id: str
    title: str = Field(repr=False)
    status: str = ""
    description: str | None = Field(default=None, repr=False)


class Message(_Object):
    """A message in a task's thread, as far as the turn needs it."""

    id: str
    task_id: str
    content: str = Field(repr=False)
    actor_type: str = "user"
    agent_role: str | None = None


class Document(_Object):
    """A document attached to a task."""

    id: str
    title: str = Field(repr=False)
    doc_type: str | None = None
    task_id: str | None = None


class Page(_Object):
    """One page of a list; ``next_cursor`` leads to the next one."""

    items: tuple[dict[str, Any], ...] = Field(repr=False)
    next_cursor: str | None = None
