"""The send request: what ``clasper.send`` and ``POST /api/agents/send`` take (contract Part 2)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from clasper_worker.config.groups import TurnsGroup
from clasper_worker.engine.queue.identifiers import check_user_id, clean_identifier
from clasper_worker.engine.queue.wellformed import measure
from clasper_worker.llm.providers.catalogue import Tier
from clasper_worker.prompt.roles import validate_role
from clasper_worker.text.whole_text import undamaged, whole_json
from clasper_worker.turn.validation import field_problem, invalid_request
from clasper_worker.turn.webhook_target import check_headers, parse_target

DEFAULT_ROLE = "default"
DEFAULT_KICKOFF_NOTE = "Draft a concise plan based on the request below."
DEFAULT_PLAN_TITLE = "Plan"


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """Caps on what one request may carry, in characters and messages.

    Those of the message and the history are above what models take; ``CLASPER_MAX_REQUEST_CHARS``
    is for what the operator's broker and proxies bear.
    """

    message_chars: int = 100_000
    history_messages: int = 1_000
    request_chars: int = 1_000_000

    @classmethod
    def from_settings(cls, settings: TurnsGroup) -> Self:
        """The caps, with the operator's on all of a request."""
        return cls(request_chars=settings.clasper_max_request_chars)

    def problems(self, data: Mapping[str, Any], *, fix: str) -> list[dict[str, str]]:
        """What is wrong with a request's size and depth; ``fix`` is that of its size."""
        characters, problems = measure(data)
        if characters > self.request_chars:
            problem = f"has {characters:,} characters in all; at most {self.request_chars:,}"
            problems.append({"field": "(request)", "problem": problem, "fix": fix})
        return problems


def _limits(info: ValidationInfo) -> RequestLimits:
    context = info.context
    return context if isinstance(context, RequestLimits) else RequestLimits()


def _no_controls(value: str) -> str:
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise ValueError("must not contain control characters")
    return value


def _stripped(value: Any) -> Any:
    return value.strip() if isinstance(value, str) else value


def _cleaned(value: Any) -> Any:
    return clean_identifier(value) if isinstance(value, str) else value


Name = Annotated[str, BeforeValidator(_stripped), Field(min_length=1, max_length=256)]
Identifier = Annotated[str, BeforeValidator(_cleaned), Field(min_length=1, max_length=256)]


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
    busy: Literal["enqueue", "reject", "interrupt", "collect", "rollback"] | None = None
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


class SendRequest(RequestPart):
    """One agent turn, asked for.

    ``session_key`` and ``agent_role`` are both set after validation, whichever was given: see
    `role`. ``repr`` shows who and which, never what was said.
    """

    user_id: Annotated[
        Identifier,
        Field(description="The tenant's user: scopes every read and write."),
    ]
    message: Annotated[str, Field(repr=False, description="What the person says to the agent.")]
    session_key: Annotated[
        str | None,
        BeforeValidator(_cleaned),
        Field(default=None, description="`user:{userId}:{role}`; or give agent_role."),
    ]
    agent_role: Annotated[
        str | None,
        BeforeValidator(_cleaned),
        Field(default=None, description="The agent's role; `default` when omitted."),
    ]
    messages: Annotated[
        tuple[HistoryMessage, ...] | None,
        Field(default=None, repr=False, description="The conversation so far, oldest first."),
    ]
    task_id: Annotated[
        Identifier | None, Field(default=None, description="The Mission Control task to post to.")
    ]
    task_title: Annotated[
        Name | None,
        Field(default=None, repr=False, description="Find or create the task of this title."),
    ]
    task_description: Annotated[str | None, Field(default=None, repr=False)]
    task_metadata: Annotated[dict[str, Any] | None, Field(default=None, repr=False)]
    idempotency_key: Annotated[
        Identifier | None,
        Field(default=None, description="The same user and key is the same turn, run once."),
    ]
    stream: bool = False
    webhook: Webhook | None = None
    metadata: SendMetadata = SendMetadata()

    @field_validator("idempotency_key", "task_id", "session_key")
    @classmethod
    def _plain_identifier(cls, value: str | None) -> str | None:
        return value if value is None else undamaged(_no_controls(value))

    @field_validator("user_id")
    @classmethod
    def _user_as_seen(cls, value: str) -> str:
        return check_user_id(undamaged(value))

    @field_validator("metadata", mode="before")
    @classmethod
    def _null_metadata(cls, value: Any) -> Any:
        return {} if value is None else value

    @field_validator("message")
    @classmethod
    def _message_within_cap(cls, value: str, info: ValidationInfo) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        cap = _limits(info).message_chars
        if len(value) > cap:
            raise ValueError(f"has {len(value):,} characters; at most {cap:,}")
        return value

    @field_validator("messages")
    @classmethod
    def _history_within_cap(
        cls, value: tuple[HistoryMessage, ...] | None, info: ValidationInfo
    ) -> tuple[HistoryMessage, ...] | None:
        cap = _limits(info).history_messages
        if value is not None and len(value) > cap:
            raise ValueError(f"has {len(value):,} messages; at most {cap:,}")
        return value

    @field_validator("agent_role")
    @classmethod
    def _role_is_a_file_name(cls, value: str | None) -> str | None:
        return value if value is None else validate_role(value)

    @field_validator("session_key")
    @classmethod
    def _session_key_form(cls, value: str | None) -> str | None:
        if value is not None:
            split_session_key(value)
        return value

    @model_validator(mode="after")
    def _agreement(self) -> Self:
        if self.session_key is not None:
            key_user, key_role = split_session_key(self.session_key)
            if key_user != self.user_id:
                raise ValueError("session_key: names another user than user_id")
            if self.agent_role is not None and self.agent_role != key_role:
                raise ValueError("session_key: names another role than agent_role")
        return self

    @property
    def role(self) -> str:
        """The agent's role: ``agent_role``, else the session key's, else ``default``."""
        if self.agent_role is not None:
            return self.agent_role
        if self.session_key is not None:
            return split_session_key(self.session_key)[1]
        return DEFAULT_ROLE

    @property
    def session(self) -> str:
        """The session key: as given, else ``user:{user_id}:{role}``."""
        return self.session_key or f"user:{self.user_id}:{self.role}"

    @property
    def prompt_mode(self) -> Literal["full", "minimal"]:
        """How much of the workspace the model is told."""
        return "full"

    def history_limit(self, configured: int) -> int:
        """How many of the task's messages the model is told, where ``configured`` many may be."""
        return configured

    def visible(self, reply: str) -> str | None:
        """What of the model's reply is posted; None: nothing."""
        return reply

    @property
    def instruction(self) -> str:
        """What the model is told last: the message, with the kickoff note before it if asked."""
        if not self.metadata.kickoff_plan:
            return self.message
        return f"{self.metadata.kickoff_note or DEFAULT_KICKOFF_NOTE}\n\n{self.message}"


@lru_cache(maxsize=1024)
def split_session_key(session_key: str) -> tuple[str, str]:
    """Split ``user:{userId}:{role}`` into user id and role.

    A user id may itself hold colons; a role may not.

    Raises:
        ValueError: it is not of that form.
    """
    prefix, _, rest = session_key.partition(":")
    user_id, separator, role = rest.rpartition(":")
    if prefix != "user" or not separator or not user_id:
        raise ValueError("must have the form user:{userId}:{role}")
    check_user_id(user_id)
    return user_id, validate_role(role)


def parse_send_request(data: Mapping[str, Any], limits: RequestLimits | None = None) -> SendRequest:
    """Check a send request (contract Part 2, "The send request").

    Args:
        data: the task's kwargs or the HTTP body, decoded.
        limits: caps on its size; the defaults when omitted.

    Raises:
        InvalidRequestError: names every bad field, its problem and the fix.
    """
    limits = limits or RequestLimits()
    data = whole_json(data)
    problems = limits.problems(data, fix="shorten it, or raise CLASPER_MAX_REQUEST_CHARS")
    if problems:
        raise invalid_request(problems)
    try:
        return SendRequest.model_validate(data, context=limits)
    except ValidationError as exc:
        errors = exc.errors(include_input=False, include_url=False)
        raise invalid_request(field_problem(error) for error in errors) from None
