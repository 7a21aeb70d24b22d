"""Reading a chat completion, as servers send it: more forms than the API describes. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from clasper_worker.llm.messages import ModelReply, TokenUsage, ToolCall
from clasper_worker.llm.providers.provider import ModelRef
from clasper_worker.llm.spoken import (
    json_without_controls,
    may_escape_controls,
    without_controls,
    without_thoughts,
)

UNNAMED_TOOL = "unnamed_tool"
"""The name of a call that has none: no tool is called so, and the model is told that."""

_MESSAGE_FIELDS = frozenset({"role", "content", "tool_calls", "function_call"})
_CALL_FIELDS = frozenset({"id", "type", "function"})
_FUNCTION_FIELDS = frozenset({"name", "arguments"})
_TEXT_PARTS = frozenset({None, "text", "output_text"})


def read_completion(data: Mapping[str, Any], ref: ModelRef) -> ModelReply:
    """Read a chat completion whose first choice has a message.

    Tool calls may have no ids, or the same: see `with_own_ids`.

    Raises:
        ValueError, TypeError, LookupError, AttributeError, RecursionError: it is not of any form
            that is known.
    """
    choice = data["choices"][0]
    message = choice["message"]
    content = message.get("content")
    said = without_controls(text_of(content) or text_of(message.get("refusal")))
    calls = tuple(_call(call) for call in message.get("tool_calls") or _older_calls(message))
    text = without_thoughts(said)
    extra: dict[str, Any] | None = None
    if calls:
        # Only then the message goes back to the provider.
        extra = _others(message, _MESSAGE_FIELDS) or {}
        if content and (not isinstance(content, str) or text != said):
            extra["content"] = json_without_controls(content)
    return ModelReply(
        text=text,
        tool_calls=calls,
        usage=_usage(data.get("usage")),
        provider=ref.provider,
        model=str(data.get("model") or ref.name),
        finish_reason=choice.get("finish_reason"),
        extra=extra or None,
    )


def with_own_ids(reply: ModelReply, step: int, taken: Iterable[str]) -> ModelReply:
    """Give calls that have no id, or another's, one of our own: nine letters and digits.

    So each result has its call in the conversation; some providers take no other form of id.

    Args:
        reply: with tool calls.
        step: which model call of the turn, from 1.
        taken: the ids in the conversation so far.
    """
    taken = set(taken)
    calls: list[ToolCall] = []
    for index, call in enumerate(reply.tool_calls):
        own = call
        number = index
        while not own.id or own.id in taken:
            own = replace(call, id=f"c{step:03d}{number:05d}")
            number += 1
        taken.add(own.id)
        calls.append(own)
    return replace(reply, tool_calls=tuple(calls))


def text_of(content: object) -> str:
    """The text of a content: a string, or the text of its parts, thoughts and pictures left out."""
    if content is None or isinstance(content, str):
        return content or ""
    parts = [content] if isinstance(content, Mapping) else content
    if not isinstance(parts, list):
        raise TypeError("content is not text")
    return "".join(_part(part) for part in parts)


def _part(part: object) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise TypeError("a part of the content is not an object")
    kind = part.get("type")
    text = part.get("refusal") if kind == "refusal" else part.get("text")
    return text if isinstance(text, str) and (kind in _TEXT_PARTS or kind == "refusal") else ""


def _older_calls(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The one call that a message of the API's older form makes."""
    called = message.get("function_call")
    return [{"function": called}] if called else []


def _call(call: Mapping[str, Any]) -> ToolCall:
    function = call.get("function")
    flat = function is None  # some leave out the level in between
    asked: Mapping[str, Any] = call if function is None else function
    name = asked.get("name")
    if not name and "arguments" not in asked:
        raise LookupError("a tool call without a function")
    extra = _others(call, _CALL_FIELDS | _FUNCTION_FIELDS if flat else _CALL_FIELDS) or {}
    if not flat and (more := _others(asked, _FUNCTION_FIELDS)):
        extra["function"] = more
    identifier = call.get("id")
    return ToolCall(
        without_controls(str(identifier)) if isinstance(identifier, str | int) else "",
        (without_controls(name).strip() if isinstance(name, str) else "") or UNNAMED_TOOL,
        _arguments(asked.get("arguments")),
        extra or None,
    )


def _arguments(arguments: object) -> str:
    """The arguments as JSON text; some send an object where the API has text, or nothing."""
    if arguments is None:
        return "{}"
    if not isinstance(arguments, str):
        return json.dumps(json_without_controls(arguments), ensure_ascii=False)
    plain = without_controls(arguments)
    if may_escape_controls(plain):
        try:
            value = json.loads(plain)
        except (ValueError, RecursionError):
            return plain  # the tool will say so to the model
        return json.dumps(json_without_controls(value), ensure_ascii=False)
    return plain if plain.strip() else "{}"


def _others(fields: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any] | None:
    """The fields that mean nothing to us and say something."""
    if fields.keys() <= known:
        return None
    return {
        without_controls(name): json_without_controls(value)
        for name, value in fields.items()
        if name not in known and value is not None
    }


def _usage(usage: object) -> TokenUsage:
    """The tokens as counted; compatible servers leave counts out, or give some that do not add up.

    A prompt always has tokens, so that zero is a count that was left out, too.
    """
    if not isinstance(usage, Mapping):
        return TokenUsage(is_complete=False)
    prompt = _count(usage, "prompt_tokens", "input_tokens")
    completion = _count(usage, "completion_tokens", "output_tokens")
    total = _count(usage, "total_tokens")
    if prompt is None and completion is not None and total is not None:
        prompt = max(0, total - completion)
    if completion is None and prompt is not None and total is not None:
        completion = max(0, total - prompt)
    details = usage.get("prompt_tokens_details")
    cached = _count(details, "cached_tokens") if isinstance(details, Mapping) else None
    return TokenUsage(
        prompt or 0,
        completion or 0,
        min(prompt or 0, cached or 0),
        is_complete=bool(prompt) and completion is not None,
    )


def _count(usage: Mapping[str, Any], *names: str) -> int | None:
    for name in names:
        value = usage.get(name)
        if isinstance(value, int | float):
            return max(0, int(value))
    return None
