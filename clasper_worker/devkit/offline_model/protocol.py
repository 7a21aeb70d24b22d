"""Chat completion requests as the OpenAI API takes them, and what makes one invalid.

Source: https://platform.openai.com/docs/api-reference/chat/create. Fields that are not listed
here (``temperature``, ``seed``, …) are accepted and have no effect. Unions of the API (content as
text or parts, a tool choice as a word or an object) are brought to one form while reading.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from clasper_worker.errors import InvalidRequestError

DEFAULT_MODEL = "clasper-offline"


class Wire(BaseModel):
    """Base of what the API takes: fields that are not listed are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


WireT = TypeVar("WireT", bound=Wire)


class ContentPart(Wire):
    """One part of a message: ``text`` is empty for parts that are not text."""

    type: str
    text: str = ""


class FunctionSpec(Wire):
    """A function that may be called; ``parameters`` is its JSON Schema."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class CalledFunction(Wire):
    """The function that an earlier reply called, or that a tool choice names."""

    name: str
    arguments: str = ""


class PastToolCall(Wire):
    """A tool call that an earlier reply made."""

    id: str
    function: CalledFunction


class Message(Wire):
    """One message; ``content`` is always a tuple of parts here."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: tuple[ContentPart, ...] = ()
    tool_calls: tuple[PastToolCall, ...] = ()
    tool_call_id: str | None = None

    @field_validator("content", "tool_calls", mode="before")
    @classmethod
    def _parts(cls, value: Any) -> Any:
        return ({"type": "text", "text": value},) if isinstance(value, str) else value or ()

    @property
    def text(self) -> str:
        """The content as text; a part that is not text appears as its type: ``[image_url]``."""
        return "\n".join(
            part.text if part.type == "text" else part.text or f"[{part.type}]"
            for part in self.content
        )


class Tool(Wire):
    """A tool; only functions are supported."""

    type: Literal["function"]
    function: FunctionSpec


class ToolChoice(Wire):
    """``tool_choice``: ``type`` is the API's word, or ``function`` with the function's name."""

    type: Literal["none", "auto", "required", "function"]
    function: CalledFunction | None = None


class ResponseFormat(Wire):
    """``response_format``: free text, any JSON object, or JSON that fits a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = None


class ChatRequest(Wire):
    """One chat completion request."""

    model: Annotated[str, Field(min_length=1)] = DEFAULT_MODEL
    messages: Annotated[tuple[Message, ...], Field(min_length=1)]
    tools: tuple[Tool, ...] | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    n: Literal[1] | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None

    @field_validator("tool_choice", mode="before")
    @classmethod
    def _choice(cls, value: Any) -> Any:
        return {"type": value} if isinstance(value, str) else value

    @property
    def reports_usage(self) -> bool:
        """Whether a stream's last chunk is to have the usage."""
        return bool((self.stream_options or {}).get("include_usage"))

    @property
    def usable_functions(self) -> tuple[FunctionSpec, ...]:
        """The functions that may be called: none where the choice is ``none``."""
        is_none = self.tool_choice is not None and self.tool_choice.type == "none"
        return () if is_none else tuple(tool.function for tool in self.tools or ())


def read_object(body: bytes) -> dict[str, Any]:
    """Read a body that must be a JSON object.

    Raises:
        InvalidRequestError: it is not.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise _refused("The body is not valid JSON: send a JSON object.") from None
    if not isinstance(data, dict):
        raise _refused("The body must be a JSON object.")
    return data


def parse_request(data: dict[str, Any]) -> ChatRequest:
    """Read a request.

    Raises:
        InvalidRequestError: it is not a request that the OpenAI API would take; ``details`` has
            ``param`` (as in ``messages[0].role``, or None) and ``code`` as that API names them.
    """
    request = validated(ChatRequest, data)
    _check_tools(request)
    _check_order(request.messages)
    return request


def validated(kind: type[WireT], data: dict[str, Any]) -> WireT:
    """Read one kind of request; raises as `parse_request` does."""
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        param = ""
        for item in error["loc"]:
            param += f"[{item}]" if isinstance(item, int) else f".{item}" if param else item
        code = "missing_required_parameter" if error["type"] == "missing" else "invalid_value"
        raise _refused(f"Invalid '{param}': {error['msg']}.", param, code) from None


def _check_tools(request: ChatRequest) -> None:
    names = [tool.function.name for tool in request.tools or ()]
    choice = request.tool_choice
    if len(set(names)) < len(names):
        raise _refused("Invalid 'tools': function names must be unique.", "tools")
    wanted = request.response_format
    if wanted and wanted.type == "json_schema" and wanted.json_schema is None:
        param = "response_format.json_schema"
        raise _refused(f"Missing '{param}'.", param, "missing_required_parameter")
    if choice is None or choice.type in {"none", "auto"}:
        return
    if not names:
        raise _refused("'tool_choice' is only allowed when 'tools' are given.", "tool_choice")
    if choice.type == "function" and (choice.function is None or choice.function.name not in names):
        raise _refused(
            "Invalid 'tool_choice.function.name': name one of the functions in 'tools'.",
            "tool_choice.function.name",
        )


def _check_order(messages: tuple[Message, ...]) -> None:
    """Tool calls and tool results must pair up, directly one after the other."""
    open_calls: set[str] = set()
    answered: set[str] = set()
    for index, message in enumerate(messages):
        param = f"messages[{index}]"
        if message.role == "tool":
            if message.tool_call_id not in open_calls | answered:
                raise _refused(
                    f"Invalid '{param}': a message with role 'tool' must answer a 'tool_call_id' "
                    "of the assistant message with 'tool_calls' right before it.",
                    f"{param}.tool_call_id",
                )
            open_calls.discard(message.tool_call_id or "")
            answered.add(message.tool_call_id or "")
            continue
        if open_calls:
            break
        answered = set()
        open_calls = {call.id for call in message.tool_calls if message.role == "assistant"}
    if open_calls:
        raise _refused(
            "Invalid 'messages': an assistant message with 'tool_calls' must be followed by a tool "
            f"message for each 'tool_call_id'; {len(open_calls)} of them have none.",
            "messages",
        )


def _refused(
    message: str, param: str | None = None, code: str | None = "invalid_value"
) -> InvalidRequestError:
    return InvalidRequestError(message, {"param": param, "code": code if param else None})
