"""The tools of a turn: what the model is told of them, and how its calls are carried out."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from clasper_worker.errors import (
    BackendConflictError,
    BackendNotFoundError,
    BackendRejectedError,
    ToolError,
)
from clasper_worker.llm.messages import ToolCall, ToolSpec
from clasper_worker.llm.tokens import tool_tokens
from clasper_worker.mission_control.client import AgentBackend
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.prompt.sanitize import fence_data, json_for_model
from clasper_worker.text.whole_text import json_of, whole

# Answers of the backend that the model can act on. Others (401, 5xx after retries) end the turn.
_TOLD_TO_THE_MODEL = (BackendNotFoundError, BackendRejectedError, BackendConflictError, ToolError)

MAX_RESULT_CHARS = 40_000
"""Characters of one result that the model is told, about 10,000 tokens: one call must not fill the
conversation."""

_NAME_CHARS = 64  # of a tool that there is not

_RESULT_CUT = " … [the result is longer and was cut here: ask for less at a time]"


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool call may use.

    Attributes:
        backend: the backend under the turn's agent token.
        tasks: finds or creates tasks by title.
        task_id: the turn's own Mission Control task.
        idempotency_key: the key for this call's POST.
    """

    backend: AgentBackend
    tasks: TaskFinder
    task_id: str
    idempotency_key: str


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call came to.

    Attributes:
        text: what the model is told: JSON, fenced as data.
        succeeded: False where it is told of an error.
    """

    text: str = field(repr=False)
    succeeded: bool


class ToolArguments(BaseModel):
    """Base of a tool's arguments: the JSON Schema that the model sees comes from its fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


ArgumentsT = TypeVar("ArgumentsT", bound=ToolArguments)


@dataclass(frozen=True)
class Tool(Generic[ArgumentsT]):
    """One tool: its name and description for the model, its arguments, and what it does.

    ``feature`` is what the backend must offer for it; None where it needs nothing of the backend.
    """

    name: str
    description: str
    arguments: type[ArgumentsT]
    run: Callable[[ToolContext, ArgumentsT], Awaitable[Mapping[str, Any]]]
    feature: str | None = None

    def spec(self) -> ToolSpec:
        """The tool as the model is told of it."""
        schema = _plain_schema(self.arguments.model_json_schema())
        return ToolSpec(self.name, self.description, schema)

    async def call(self, context: ToolContext, arguments: str) -> Mapping[str, Any]:
        """Check the arguments and run.

        Raises:
            ToolError: the arguments are not JSON or do not fit the schema; says how.
            BackendError: the backend refused or failed.
        """
        try:
            parsed = self.arguments.model_validate_json(_whole_arguments(arguments) or "{}")
        except ValidationError as exc:
            problems = [
                {"argument": ".".join(map(str, error["loc"])) or "(all)", "problem": error["msg"]}
                for error in exc.errors(include_input=False, include_url=False)
            ]
            raise ToolError(
                f"The arguments of {self.name} do not fit its schema; correct them and call again",
                {"problems": problems},
            ) from None
        return await self.run(context, parsed)


def _whole_arguments(arguments: str) -> str:
    """The arguments without escapes of half a surrogate pair, which no strict parser takes."""
    text = whole(arguments)
    if "\\ud" not in text.lower():
        return text
    try:
        return json.dumps(json_of(text))
    except (ValueError, RecursionError):
        return text  # the schema's own error tells what is wrong


class Toolbox:
    """The tools that a turn offers its model."""

    def __init__(self, tools: Sequence[Tool[Any]]) -> None:
        self._tools = {tool.name: tool for tool in tools}
        self._narrowed: dict[tuple[str, ...], Toolbox] = {}
        self.specs = tuple(tool.spec() for tool in tools)

    def where(self, features: AbstractSet[str]) -> Toolbox:
        """The tools that a backend with these features can carry out."""
        able = [
            tool
            for tool in self._tools.values()
            if tool.feature is None or tool.feature in features
        ]
        if len(able) == len(self._tools):
            return self
        names = tuple(tool.name for tool in able)
        if (known := self._narrowed.get(names)) is None:
            known = self._narrowed[names] = Toolbox(able)
        return known

    @property
    def names(self) -> tuple[str, ...]:
        """The tools' names, in the order they are offered."""
        return tuple(self._tools)

    @cached_property
    def tokens(self) -> int:
        """What telling the model of them takes, estimated."""
        return tool_tokens(self.specs)

    async def call(self, context: ToolContext, call: ToolCall) -> ToolResult:
        """Carry out one call and return what the model is told: JSON, fenced as data.

        It comes from outside, errors too (a backend may quote anyone in them), so hidden
        characters are taken out. It is an ``error`` where the call was bad or the backend refused
        it.

        Raises:
            BackendError: the backend is unavailable or does not accept our token.
        """
        try:
            tool = self._tools.get(call.name)
            if tool is None:
                raise ToolError(
                    f"There is no tool {call.name[:_NAME_CHARS]!r}", {"tools": list(self._tools)}
                )
            result, succeeded = await tool.call(context, call.arguments), True
        except _TOLD_TO_THE_MODEL as exc:
            result, succeeded = {"error": str(exc), **exc.details}, False
        text = json_for_model(result, MAX_RESULT_CHARS, _RESULT_CUT)
        return ToolResult(fence_data(f"tool {call.name[:_NAME_CHARS]}", text), succeeded)


def _plain_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Drop the titles that pydantic adds: they cost tokens and say nothing."""
    plain: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "title" and isinstance(value, str):
            continue
        if name == "properties":
            plain[name] = {key: _plain_schema(item) for key, item in value.items()}
        elif isinstance(value, dict):
            plain[name] = _plain_schema(value)
        else:
            plain[name] = value
    return plain
