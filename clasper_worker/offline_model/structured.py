"""Replies as JSON: where ``response_format`` or the words themselves ask for it."""

from __future__ import annotations

import json
import re
from itertools import islice
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

_MOST_BRACES = 200
_JSON_ONLY = re.compile(
    r"\b(?:repl(?:y|ies)|respond|return|answer|output|produce|give)\b[^.\n]{0,60}\bonly\b[^.\n]{0,60}\bjson\b"
    r"|\b(?:repl(?:y|ies)|respond|return|answer|output|produce|give)\b[^.\n]{0,40}\bjson\b[^.\n]{0,40}\bonly\b"
    r"|\bonly (?:with )?(?:a |the |one )?(?:single |valid |raw )*json\b"
    r"|\bjson (?:value |object )?(?:that|which) (?:matches|conforms|fits|validates)\b",
    re.IGNORECASE,
)


def json_reply(request: ChatRequest, talk: Conversation) -> str | None:
    """The reply as JSON text, or None where free text is wanted."""
    if not _is_wanted(request, talk):
        return None
    format_ = request.response_format
    words = talk.words
    if format_ is not None and format_.json_schema is not None:
        schema: Schema = format_.json_schema.json_schema
    else:
        schema, words = _split_schema(talk.words)
        schema = schema or _split_schema(talk.system)[0]
    if not schema:
        value: Any = {"reply": f"{LABEL} You wrote: {quoted(words)}", "points": key_phrases(words)}
    else:
        value = minimal(schema, schema, lambda name, part: _proposed(name, part, schema, words))
    return json.dumps(value, ensure_ascii=False)


def _is_wanted(request: ChatRequest, talk: Conversation) -> bool:
    if request.response_format is not None and request.response_format.type != "text":
        return True
    return bool(_JSON_ONLY.search(talk.words) or _JSON_ONLY.search(talk.system))


def _split_schema(text: str) -> tuple[Schema, str]:
    """A JSON Schema written out in a text, empty where there is none, and the rest of the text."""
    decoder = json.JSONDecoder()
    for match in islice(re.finditer(r"\{", text), _MOST_BRACES):
        try:
            value, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and (properties(value) or "$schema" in value):
            return value, f"{text[: match.start()]} {text[end:]}"
    return {}, text


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
    members = part.get("enum")
    for member in members if isinstance(members, list) else ():
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
