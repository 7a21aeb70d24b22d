"""Replies as JSON: where ``response_format`` or the words themselves ask for it."""

from __future__ import annotations

import json
import re
from typing import Any

from clasper_worker.offline_model.conversation import LABEL, Conversation
from clasper_worker.offline_model.json_schema import (
    Schema,
    fitted,
    minimal,
    properties,
    resolved,
    type_of,
)
from clasper_worker.offline_model.phrases import key_phrases, quoted, shortened
from clasper_worker.offline_model.protocol import ChatRequest

_JSON_ONLY = re.compile(
    r"\b(?:repl(?:y|ies)|respond|return|answer|output|produce|give)\b[^.\n]{0,60}\bonly\b[^.\n]{0,60}\bjson\b"
    r"|\b(?:repl(?:y|ies)|respond|return|answer|output|produce|give)\b[^.\n]{0,40}\bjson\b[^.\n]{0,40}\bonly\b"
    r"|\bonly (?:with )?(?:a |the |one )?(?:single |valid |raw )*json\b"
    r"|\bjson (?:value |object )?(?:that|which) (?:matches|conforms|fits|validates)\b",
    re.IGNORECASE,
)


def json_reply(request: ChatRequest, talk: Conversation) -> str | None:
    """The reply as JSON text, or None where free text is wanted."""
    schema = _wanted_schema(request, talk)
    if schema is None:
        return None
    if not schema:
        return json.dumps(
            {
                "reply": f"{LABEL} You wrote: {quoted(talk.words)}",
                "points": key_phrases(talk.words),
            },
            ensure_ascii=False,
        )
    value = minimal(schema, schema, lambda name, part: _proposed(name, part, schema, talk.words))
    return json.dumps(value, ensure_ascii=False)


def _wanted_schema(request: ChatRequest, talk: Conversation) -> Schema | None:
    """The schema to fit; an empty one for any JSON object; None for free text."""
    wanted = request.response_format
    if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is not None:
        return wanted.json_schema.json_schema
    if wanted is not None and wanted.type == "json_object":
        return _schema_in(talk.words) or _schema_in(talk.system) or {}
    if _JSON_ONLY.search(talk.words) or _JSON_ONLY.search(talk.system):
        return _schema_in(talk.words) or _schema_in(talk.system) or {}
    return None


def _schema_in(text: str) -> Schema | None:
    """A JSON Schema written out in a text, or None."""
    decoder = json.JSONDecoder()
    for match in list(re.finditer(r"\{", text))[:200]:
        try:
            value, _ = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and (properties(value) or "$schema" in value):
            return value
    return None


def _proposed(name: str, part: Schema, root: Schema, words: str) -> Any:
    """A value for a property: what the words say next to its name, else something from them."""
    near = re.search(
        rf"[\"'`]?\b{re.escape(name)}\b[\"'`]?\s*[:=]\s*(?:\"([^\"\n]*)\"|([^\s,}}\n][^,}}\n]*))",
        words,
        re.IGNORECASE,
    )
    if near:
        value = fitted((near.group(1) or near.group(2) or "").strip(), part, root)
        if value is not None:
            return value
    kind = type_of(part)
    for member in part.get("enum") if isinstance(part.get("enum"), list) else ():
        if re.search(rf"\b{re.escape(str(member).replace('_', ' '))}\b", words, re.IGNORECASE):
            return member
    if kind in {"integer", "number"}:
        number = re.search(r"(?<![\w.])-?\d+(?:\.\d+)?", words)
        return number.group() if number else None
    if kind == "array" and type_of(resolved(part.get("items", {}), root)) == "string":
        return list(key_phrases(words, 3))
    plain = not {"enum", "format", "pattern", "default", "const"} & part.keys()
    if kind == "string" and plain:
        text = f"{LABEL} {shortened(words, 300)}".strip()
        at_most = part.get("maxLength")
        return shortened(words, 40) if isinstance(at_most, int) and at_most < len(text) else text
    return None
