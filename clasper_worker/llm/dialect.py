"""How a model wants to be asked: the request in its words, changed on its provider's word.

Models behind one API differ in what they call the cap of a reply, in the roles they know and the
parameters they take; no list of them stays true. So a request that is refused for such a thing is
put in another way, and what helped is remembered. Pure, but for that memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from clasper_worker.llm.messages import ChatMessage, ToolSpec
from clasper_worker.llm.refusal import Refusal

ReplyCap = Literal["max_tokens", "max_completion_tokens"]

OutputForm = Literal["json_schema", "json_object", "text"]

_WEAKER_OUTPUT: dict[str, OutputForm] = {"json_schema": "json_object", "json_object": "text"}
_OF_OUTPUT = ("response_format", "json_schema", "json_object", "schema", "json_mode")
_OF_SCHEMA = ("invalid schema", "in context=", "schema is invalid", "schema is too", "in schema")
_OTHER_CAP: dict[str, ReplyCap] = {
    "max_tokens": "max_completion_tokens",
    "max_completion_tokens": "max_tokens",
}
_NEXT_ROLE: dict[str, Literal["developer", "user"]] = {"system": "developer", "developer": "user"}
_REFUSED_STATUSES = frozenset({400, 404, 405, 406, 422, 501})
_ESSENTIAL = frozenset({"model", "messages", "tools", "stream"})
_STREAMING = ("stream", "streaming")
_STREAM_OPTIONS = ("stream_options", "include_usage")
_ABOUT_ROLES = ("role", "message", "instruction")
_ABOUT_NOTHING = ("null", "none", "string", "required", "empty")


@dataclass(frozen=True, slots=True)
class Dialect:
    """The words for one model.

    Attributes:
        reply_cap: the name of the parameter that caps a reply.
        swapped: whether that is the second name that was tried.
        system_role: the role of system messages.
        left_out: parameters that it does not take.
        with_extra: whether it takes back the fields of its messages that mean nothing to us.
        null_content: whether it takes null for a message that only calls tools.
        streams: whether it answers bit by bit.
        output: how it is asked to reply with JSON: with the schema, without, or not.
        for_this_schema: whether ``output`` was found out by a schema that it does not take.
    """

    reply_cap: ReplyCap = "max_tokens"
    swapped: bool = False
    system_role: Literal["system", "developer", "user"] = "system"
    left_out: frozenset[str] = frozenset()
    with_extra: bool = True
    null_content: bool = True
    streams: bool = True
    output: OutputForm = "json_schema"
    for_this_schema: bool = False

    def body(
        self, parameters: Mapping[str, Any], messages: Sequence[ChatMessage]
    ) -> dict[str, Any]:
        """The request's body.

        Args:
            parameters: by OpenAI's names; the cap of a reply as ``max_tokens``.
            messages: the conversation.
        """
        body = {
            (self.reply_cap if name == "max_tokens" else name): value
            for name, value in parameters.items()
        }
        for name in self.left_out if self.streams else {*self.left_out, "stream", "stream_options"}:
            body.pop(name, None)
        if "response_format" in body and self.output != "json_schema":
            body["response_format"] = {"type": self.output}
            if self.output == "text":
                del body["response_format"]
        body["messages"] = [self._message(message) for message in messages]
        return body

    def changed(
        self, refusal: Refusal, body: Mapping[str, Any], messages: Sequence[ChatMessage]
    ) -> Dialect | None:
        """The words to try next, after a request in these was refused; None: it was not for them.

        Args:
            refusal: what the provider says.
            body: of the request.
            messages: its conversation.
        """
        if refusal.status not in _REFUSED_STATUSES:
            return None
        if (cap := self._blamed_cap(refusal, body)) is not None:
            return self._with_other_cap(refusal, cap)
        if "response_format" in body and _blames_output(refusal):
            return self._with_weaker_output(refusal, body["response_format"])
        if self.with_extra and any(map(refusal.blames, _extra_names(messages))):
            return replace(self, with_extra=False)
        return self._by_parameters(refusal, body) or self._by_messages(refusal, messages)

    def _with_other_cap(self, refusal: Refusal, cap: str) -> Dialect:
        if self.swapped or refusal.is_too_long or "too large" in refusal.text:
            return replace(self, left_out=self.left_out | {cap})
        return replace(self, reply_cap=_OTHER_CAP[cap], swapped=True)

    def _with_weaker_output(self, refusal: Refusal, form: Mapping[str, Any]) -> Dialect:
        about_schema = self.for_this_schema or any(word in refusal.text for word in _OF_SCHEMA)
        return replace(self, output=_WEAKER_OUTPUT[form["type"]], for_this_schema=about_schema)

    def for_other_calls(self, begun: Dialect) -> Dialect:
        """These words, as far as they say something of the model and not of one call's schema."""
        if not self.for_this_schema:
            return self
        kept = replace(self, output=begun.output, for_this_schema=False)
        return begun if kept == begun else kept

    def _blamed_cap(self, refusal: Refusal, body: Mapping[str, Any]) -> str | None:
        return next((name for name in _OTHER_CAP if name in body and refusal.blames(name)), None)

    def _by_parameters(self, refusal: Refusal, body: Mapping[str, Any]) -> Dialect | None:
        if "stream_options" in body and any(map(refusal.blames, _STREAM_OPTIONS)):
            return replace(self, left_out=self.left_out | {"stream_options"})
        for name in body:
            if name not in _ESSENTIAL and refusal.blames(name):
                return replace(self, left_out=self.left_out | {name})
        if "stream" in body and any(map(refusal.blames, _STREAMING)):
            return replace(self, streams=False)
        return None

    def _by_messages(self, refusal: Refusal, messages: Sequence[ChatMessage]) -> Dialect | None:
        role = self.system_role
        if role in _NEXT_ROLE and any(message.role == "system" for message in messages):
            about_roles = any(word in refusal.text for word in _ABOUT_ROLES)
            if refusal.blames(role) and (about_roles or "role" in (refusal.parameter or "")):
                return replace(self, system_role=_NEXT_ROLE[role])
        if self.null_content and any(_is_null(message) for message in messages):
            about_nothing = any(word in refusal.text for word in _ABOUT_NOTHING)
            if refusal.blames("content") and about_nothing:
                return replace(self, null_content=False)
        return None

    def differences(self, other: Dialect) -> list[str]:
        """What two ways of asking differ in, by the names of the API."""
        names = sorted(self.left_out ^ other.left_out)
        if self.reply_cap != other.reply_cap:
            names.append(self.reply_cap)
        if self.system_role != other.system_role:
            names.append("role")
        if self.with_extra != other.with_extra:
            names.append("messages")
        if self.null_content != other.null_content:
            names.append("content")
        if self.streams != other.streams:
            names.append("stream")
        if self.output != other.output:
            names.append("response_format")
        return names

    def _message(self, message: ChatMessage) -> dict[str, Any]:
        role = self.system_role if message.role == "system" else message.role
        wire: dict[str, Any] = {"role": role, "content": message.content}
        if message.tool_calls:
            if message.content is None and not self.null_content:
                wire["content"] = ""
            wire["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in message.tool_calls
            ]
            if self.with_extra:
                _put_extra(wire, message)
        if message.tool_call_id is not None:
            wire["tool_call_id"] = message.tool_call_id
        return wire


def wire_tools(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """The tools as the API has them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters,
            },
        }
        for tool in tools
    ]


class KnownDialect:
    """How one model is asked: what was found out so far, shared by all who ask it."""

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect


def _blames_output(refusal: Refusal) -> bool:
    if (refusal.parameter or "").startswith("response_format"):
        return True
    return any(map(refusal.blames, _OF_OUTPUT))


def _put_extra(wire: dict[str, Any], message: ChatMessage) -> None:
    if message.extra:
        wire.update(message.extra)
    for told, call in zip(wire["tool_calls"], message.tool_calls, strict=True):
        for name, value in (call.extra or {}).items():
            if name == "function":
                told["function"].update(value)
            else:
                told[name] = value


def _extra_names(messages: Iterable[ChatMessage]) -> set[str]:
    """The names of the fields that are sent back."""
    names: set[str] = set()
    for message in messages:
        names.update(message.extra or ())
        for call in message.tool_calls:
            names.update(call.extra or ())
            names.update((call.extra or {}).get("function", ()))
    return names - {"content", "function"}


def _is_null(message: ChatMessage) -> bool:
    return bool(message.tool_calls) and message.content is None
