"""Arguments of a tool call, filled from what was asked and fitted to the tool's JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from clasper_worker.offline_model.json_schema import (
    Schema,
    fitted,
    minimal,
    properties,
    required,
    resolved,
    type_of,
)
from clasper_worker.offline_model.protocol import FunctionSpec

# What a value may be called by the tool that takes it.
_SYNONYMS = {
    "title": ("title", "name", "task_title", "document_title", "subject", "summary"),
    "description": ("description", "details", "notes", "body"),
    "content": ("content", "text", "body", "message", "markdown"),
    "doc_type": ("doc_type", "document_type", "type", "kind"),
}
_VALUE = r"[\"“`](?P<quoted>[^\"”`\n]+)[\"”`]|'(?P<single>[^'\n]+)'|(?P<bare>[^\s,;\"'][^,;\n\"]*?)"
_VALUE_END = r"(?=\s*(?:[,;)\n]|[.!?](?:\s|$)|$|\s(?:and|with)\s))"
_PREPOSITIONS = re.compile(
    r"^\W*(?:tool\b|function\b)?\W*(?:(?:with|for|about|on|to|in|of|at|called|named|titled|that|saying"
    r"|using|it|and|please|me)\b\W*)*",
    re.IGNORECASE,
)


_BARE_END = re.compile(r"\s+(?:for|with|and|in|on|at)\s+(?=-?\d)|[,;\n]|\s+(?:with|and)\s+")


def action_arguments(
    tool: FunctionSpec, values: Mapping[str, str], said: str, sources: Iterable[str]
) -> dict[str, Any]:
    """Arguments for a tool of a known kind.

    Args:
        tool: the tool to call.
        values: what was asked for, by our names: ``title``, ``description``, ``content``, …
        said: the words that asked for it, where further properties may be named.
        sources: texts in which a required property may be found, the best first.

    Returns:
        Arguments with every required property.
    """
    root, schema = _parameters(tool)
    known = properties(schema)
    if not known and not required(schema) and schema.get("additionalProperties") is not False:
        return {name: value for name, value in values.items() if value}
    arguments: dict[str, Any] = {}
    for slot, value in values.items():
        names = (name for name in _SYNONYMS.get(slot, (slot,)) if name in known)
        name = next((name for name in names if name not in arguments), None)
        if name is not None and value:
            _put(arguments, name, fitted(value, known[name], root))
    for name, part in known.items():
        if name not in arguments:
            _put(arguments, name, fitted(_named_value(name, said, needs_sign=True), part, root))
    return _complete(arguments, schema, root, sources)


def spoken_arguments(
    tool: FunctionSpec, clause: str, rest: str, sources: Iterable[str]
) -> dict[str, Any]:
    """Arguments for a tool that was asked for by its name.

    Args:
        tool: the tool to call.
        clause: the words that name it.
        rest: the clause after the name.
        sources: texts in which a required property may be found, the best first.

    Returns:
        Arguments with every required property.
    """
    root, schema = _parameters(tool)
    known = properties(schema)
    arguments: dict[str, Any] = {}
    for name, value in _json_object(clause).items():
        if name in known:
            _put(arguments, name, fitted(value, known[name], root))
    for name, part in known.items():
        if name not in arguments:
            value = _named_value(name, rest, needs_sign=name not in required(schema))
            _put(arguments, name, fitted(value, part, root))
    names = [*required(schema), *(name for name in known if name not in required(schema))]
    open_names = [name for name in names if name in known and name not in arguments]
    used = {str(value) for value in arguments.values()}
    strings = [text for text in _quotes(rest) if text not in used]
    numbers = re.findall(r"(?<![\w.])-?\d+(?:\.\d+)?(?![\w.]*\w)", re.sub(r"\"[^\"]*\"", "", rest))
    for name in open_names:
        kind = type_of(resolved(known[name], root))
        pool = numbers if kind in {"integer", "number"} else strings
        if pool and kind != "object" and pool[0] not in used:
            fit = fitted(pool[0], known[name], root)
            _put(arguments, name, fit)
            pool[:] = pool[1:] if fit is not None else pool
    bare = _BARE_END.split(_PREPOSITIONS.sub("", rest), maxsplit=1)[0].strip(" .,:;!?")
    for name in required(schema):
        if name not in arguments and not any(isinstance(it, str) for it in arguments.values()):
            _put(arguments, name, fitted(bare or None, known.get(name, {}), root))
    return _complete(arguments, schema, root, sources)


def takes(tool: FunctionSpec, name: str) -> bool:
    """Whether the tool has a parameter of this name."""
    return name in properties(_parameters(tool)[1])


def _parameters(tool: FunctionSpec) -> tuple[Schema, Schema]:
    root = tool.parameters or {}
    return root, resolved(root, root)


def _complete(
    arguments: dict[str, Any], schema: Schema, root: Schema, sources: Iterable[str]
) -> dict[str, Any]:
    known, texts = properties(schema), tuple(sources)
    for name in required(schema):
        if name in arguments:
            continue
        part = known.get(name, {})
        proposals = (_named_value(name, text, needs_sign=True) for text in texts)
        fits = (fitted(value, part, root) for value in proposals if value)
        value = next((fit for fit in fits if fit is not None), None)
        arguments[name] = minimal(part, root) if value is None else value
    return arguments


def _named_value(name: str, text: str, *, needs_sign: bool) -> str | None:
    """The value that the text gives next to a property's name, as in ``status: done``."""
    words = r"[\s_-]?".join(re.escape(word) for word in re.split(r"[_\s-]+", name) if word)
    if not words:
        return None
    sign = r"\s*[\"*`]{0,2}\s*[:=]\s*[*`]{0,2}\s*"
    joint = sign if needs_sign else rf"(?:{sign}|\s+(?:is\s+|of\s+|to\s+|as\s+)?)"
    pattern = rf"(?<![\w-]){words}{joint}(?:{_VALUE}){_VALUE_END}"
    if needs_sign:
        pattern = (
            rf"{pattern}|(?<![\w-]){words}\s+(?:is\s+|of\s+)?\"(?P<direct>[^\"\n]+)\""
            rf"|(?:\b(?:with|and)|,)\s+(?:the\s+|a\s+)?{words}\s+(?:is\s+|of\s+)?(?P<word>[\w-]+)"
        )
    match = re.search(pattern, text, re.IGNORECASE)
    if match is None:
        return None
    return next((value.strip(" *`") for value in match.groups() if value), None)


def _quotes(text: str) -> list[str]:
    return [match.group(1) for match in re.finditer(r"\"([^\"]+)\"", text)]


def _json_object(text: str) -> dict[str, Any]:
    start = text.find("{")
    if start < 0:
        return {}
    try:
        value, _ = json.JSONDecoder().raw_decode(text[start:])
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _put(arguments: dict[str, Any], name: str, value: Any) -> None:
    if value is not None:
        arguments[name] = value
