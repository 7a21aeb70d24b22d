"""What tool results say, told honestly: what came back, what failed, nothing that is not there."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from clasper_worker.offline_model.conversation import ExecutedCall
from clasper_worker.offline_model.heads import Kind
from clasper_worker.offline_model.phrases import counted, quoted, shortened
from clasper_worker.offline_model.toolbox import kind_of

_WRAPPERS = ("result", "data", "output", "task", "document", "message", "item", "notification")
_LISTS = (
    "items",
    "tasks",
    "notifications",
    "documents",
    "messages",
    "results",
    "data",
    "deliveries",
)
_SHOWN = 10


def read_result(call: ExecutedCall) -> Any:
    """The result as JSON where it is JSON, without the wrappers that tools put around it."""
    try:
        value = json.loads(call.result)
    except (ValueError, RecursionError):
        return call.result
    for _ in range(3):
        if not isinstance(value, Mapping) or _id(value) or _error_in(value):
            break
        inner = next((value[key] for key in _WRAPPERS if isinstance(value.get(key), dict)), None)
        if inner is None:
            break
        value = inner
    return value


def failure(call: ExecutedCall) -> str | None:
    """Why the call failed, as its result says it; None where it did not fail."""
    value = read_result(call)
    if isinstance(value, Mapping):
        return _error_in(value)
    if isinstance(value, str) and re.match(
        r"\W*(?:\w*error|failed|failure|traceback)\b", value, re.IGNORECASE
    ):
        return shortened(value, 300)
    return None


def created_id(call: ExecutedCall) -> str | None:
    """The id of what the call made, or None."""
    value = read_result(call)
    return None if failure(call) is not None or not isinstance(value, Mapping) else _id(value)


def is_empty(call: ExecutedCall) -> bool:
    """Whether the call brought a list with nothing in it, or nothing at all."""
    value = read_result(call)
    return not value or _items_in(value) == []


def told(call: ExecutedCall) -> str:
    """One call and its result in a sentence or a short list."""
    problem = failure(call)
    if problem is not None:
        title = call.arguments.get("title")
        aim = f" for {quoted(title, 120)}" if isinstance(title, str) and title else ""
        return f"`{call.name}`{aim} failed: {problem}"
    value, kind = read_result(call), kind_of(call.name)
    items = _items_in(value)
    if items is not None:
        return _told_list(call.name, kind, items, value)
    if not isinstance(value, Mapping):
        text = str(value).strip()
        return (
            f"`{call.name}` answered: {quoted(text)}"
            if text
            else f"`{call.name}` answered nothing."
        )
    if kind is Kind.POST_MESSAGE:
        content = value.get("content") or call.arguments.get("content") or ""
        return f"I posted this message: {quoted(str(content), 300)}{_details(value)}."
    if kind in {Kind.CREATE_TASK, Kind.CREATE_DOCUMENT}:
        noun = "task" if kind is Kind.CREATE_TASK else "document"
        title = value.get("title") or call.arguments.get("title") or "untitled"
        verb = "There was already a" if _was_there(value) else "I created the"
        return f"{verb} {noun} {quoted(str(title), 200)}{_details(value)}."
    return f"`{call.name}` returned {_flat(value)}."


def _told_list(name: str, kind: Kind, items: list[Any], value: Any) -> str:
    noun = {Kind.LIST_TASKS: "task", Kind.GET_NOTIFICATIONS: "notification"}.get(kind)
    more = isinstance(value, Mapping) and bool(value.get("next_cursor"))
    if noun is None:
        head = f"`{name}` returned {counted(len(items), 'item')}"
    else:
        head = f"There {'is' if len(items) == 1 else 'are'} {counted(len(items), noun)}"
    if not items:
        return f"{head}."
    lines = [f"- {_told_item(item)}" for item in items[:_SHOWN]]
    if len(items) > _SHOWN:
        lines.append(f"- … and {len(items) - _SHOWN} more")
    tail = " on this page (there are more)" if more else ""
    return "\n".join([f"{head}{tail}:", *lines])


def _told_item(item: Any) -> str:
    if not isinstance(item, Mapping):
        return shortened(str(item))
    for key in ("title", "name", "content", "message", "text", "subject"):
        if isinstance(item.get(key), str) and item[key]:
            return f"{quoted(shortened(item[key]))}{_details(item)}"
    return _flat(item)


def _details(value: Mapping[str, Any]) -> str:
    """The facts worth telling besides the title, as “ (status open, id t1)”."""
    named = (("status", "status"), ("doc_type", "type"))
    facts = [f"{name} {value[key]}" for key, name in named if value.get(key)]
    identity = _id(value)
    facts += [f"id {identity}"] if identity else []
    return f" ({', '.join(facts)})" if facts else ""


def _items_in(value: Any) -> list[Any] | None:
    if isinstance(value, list):
        return value
    if isinstance(value, Mapping) and "id" not in value:
        return next((value[key] for key in _LISTS if isinstance(value.get(key), list)), None)
    return None


def _error_in(value: Mapping[str, Any]) -> str | None:
    error = value.get("error") or value.get("errors")
    refused = value.get("ok") is False or value.get("success") is False
    refused = refused or (str(value.get("status")) in {"error", "failed"} and not _id(value))
    if not error and not refused:
        return None
    if isinstance(error, Mapping):
        value, error = {**value, **error}, None
    text = (
        error
        or value.get("message")
        or value.get("detail")
        or value.get("details")
        or "no reason given"
    )
    code = value.get("code")
    return f"{shortened(str(text), 300)}{f' ({code})' if code else ''}"


def _was_there(value: Mapping[str, Any]) -> bool:
    return value.get("created") is False or value.get("existing") is True


def _id(value: Mapping[str, Any]) -> str | None:
    found = next((value[key] for key in ("id", "task_id", "document_id") if value.get(key)), None)
    return str(found) if isinstance(found, str | int) else None


def _flat(value: Mapping[str, Any]) -> str:
    parts = (
        f"{key}: {item if isinstance(item, str | int | float) else json.dumps(item, default=str)}"
        for key, item in value.items()
    )
    return shortened("; ".join(parts) or "an empty object", 600)
