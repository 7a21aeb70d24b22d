"""What a send request is made of: earlier messages, a webhook, switches."""

from __future__ import annotations

from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from clasper_worker.llm.catalogue import Tier
from clasper_worker.webhooks.headers import check_headers
from clasper_worker.webhooks.url import parse_target
from clasper_worker.whole_text import undamaged


class RequestPart(BaseModel):
    """What requests are made of: known fields alone, and no people's text in errors."""

    # hide_input_in_errors: a validation error must not carry people's text into logs.
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class HistoryMessage(RequestPart):
    """One earlier message of the conversation."""

    role: Literal["user", "assistant", "system"]
    content: str = Field(repr=False)


class Webhook(RequestPart):
    """Where to report the turn's end."""

    url: str = Field(pattern=r"^https?://", max_length=2048, repr=False)
    secret: SecretStr | None = Field(default=None, min_length=1, max_length=1024)
    headers: dict[str, str] = Field(default_factory=dict, repr=False)

    @field_validator("url")
    @classmethod
    def _usable_url(cls, value: str) -> str:
        parse_target(undamaged(value))
        return value

    @field_validator("secret")
    @classmethod
    def _whole_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            undamaged(value.get_secret_value())
        return value

    @field_validator("headers")
    @classmethod
    def _usable_headers(cls, value: dict[str, str]) -> dict[str, str]:
        check_headers(value)
        return value


class SendMetadata(BaseModel):
    """The request's switches; unknown keys are passed through untouched."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    system_prompt: str | None = Field(default=None, repr=False)
    kickoff_plan: bool = False
    kickoff_note: str | None = Field(default=None, repr=False)
    plan_title: str | None = Field(default=None, max_length=500, repr=False)
    skipSmartContext: bool = False  # noqa: N815 - the contract's spelling
    forceIncludeSkills: tuple[str, ...] = ()  # noqa: N815 - the contract's spelling
    smart_context_max_skills: Annotated[int, Field(ge=0)] | None = None
    smart_context_max_memory: Annotated[int, Field(ge=0)] | None = None
    smart_context_token_budget: Annotated[int, Field(ge=0)] | None = None
    busy: Literal["enqueue", "reject", "interrupt", "collect"] | None = None
    timezone: str | None = None
    workspace: str | None = None
    model_tier: Tier = "default"

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (KeyError, ValueError, OSError):
                raise ValueError("is not an IANA time zone such as Europe/Berlin") from None
        return value

    def __repr__(self) -> str:
        # The extra keys may hold anything; name them, do not show them.
        return f"SendMetadata(keys={sorted(self.model_fields_set)})"
