"""What goes into a prompt and what comes out: frozen data between the turn and the builder."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from clasper_worker.prompt.retrieval.selection import Selection, SmartLimits
from clasper_worker.prompt.roles import validate_role

Mode = Literal["full", "minimal"]
Part = Literal["system", "turn_context"]


@dataclass(frozen=True, slots=True)
class PromptInputs:
    """What a turn adds to its workspace.

    Attributes:
        role: the agent's role, contract form.
        now: the moment of the turn, with a time zone.
        timezone: IANA name of the zone to tell the time in; an unknown one becomes UTC.
        include_time: whether to tell the time at all.
        system_prompt_override: ``metadata.system_prompt``; None or blank: no override.
        task_title: title of the Mission Control task, as it came.
        tool_names: the tools that the model can call this turn.
        mode: ``full``, or ``minimal`` for background turns.
        forced_skills: names of skills whose instructions must be there.
        selection: what smart context chose; None: the full context.

    Raises:
        ValueError: the role cannot name a file, or ``now`` has no time zone.
    """

    role: str
    now: datetime
    timezone: str = "UTC"
    include_time: bool = True
    system_prompt_override: str | None = field(default=None, repr=False)
    task_title: str | None = field(default=None, repr=False)
    tool_names: tuple[str, ...] = ()
    mode: Mode = "full"
    forced_skills: tuple[str, ...] = ()
    selection: Selection | None = None

    def __post_init__(self) -> None:
        validate_role(self.role)
        if self.now.tzinfo is None:
            raise ValueError("now: has no time zone; use datetime.now(UTC)")


@dataclass(frozen=True, slots=True)
class Section:
    """One named piece of a prompt.

    Attributes:
        name: as in the table of `clasper_worker.prompt.builder`.
        source: the file it comes from, ``built in`` or ``request``.
        text: exactly what is sent.
    """

    name: str
    source: str
    text: str = field(repr=False)
    part: Part = "system"


@dataclass(frozen=True, slots=True)
class PromptWarning:
    """Something about this prompt that the caller or the author may want to know."""

    subject: str
    problem: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """What one turn tells the model besides history and message.

    Attributes:
        system: the system message; stable from turn to turn.
        turn_context: goes in front of the newest user message; may be empty.
        sections: what both are made of, in order.
    """

    system: str = field(repr=False)
    turn_context: str = field(repr=False)
    sections: tuple[Section, ...]
    warnings: tuple[PromptWarning, ...]


@dataclass(frozen=True, slots=True)
class PromptSettings:
    """What the operator configured about prompts.

    Attributes:
        timezone: IANA name, for requests that name none.
        include_time: whether the prompt tells the time.
        smart_limits: for requests that do not say.
        warn_from_percent: of the model's window; from there on the result has a warning.
    """

    timezone: str = "UTC"
    include_time: bool = True
    smart_limits: SmartLimits = field(default_factory=SmartLimits)
    warn_from_percent: int = 75
