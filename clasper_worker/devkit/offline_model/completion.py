"""A decision as the OpenAI API answers it: whole, or in chunks, with estimated usage.

Tokens are an estimate of one for each four characters, rounded up, over what was really sent and
answered. ``max_tokens`` cuts nothing: replies are short.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.devkit.offline_model.protocol import DEFAULT_MODEL, ChatRequest
from clasper_worker.devkit.offline_model.rules import Decision

CHARS_PER_TOKEN = 4

_PIECES = re.compile(r"\s+|(?:\S+\s*){1,4}")
_ARGUMENT_PIECE = 40


@dataclass(frozen=True, slots=True)
class WireCall:
    """A tool call as it is sent; ``arguments`` is JSON."""

    id: str
    name: str
    arguments: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer: ``text`` or ``calls``, why it ended, and token counts."""

    id: str
    created: int
    model: str
    text: str = field(repr=False)
    calls: tuple[WireCall, ...]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int

    @property
    def usage(self) -> dict[str, int]:
        """The estimated usage, as the API names it."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
        }


def estimated_tokens(text: str) -> int:
    """About how many tokens a text is: one for each four characters, rounded up."""
    return -(-len(text) // CHARS_PER_TOKEN)


def complete(request: ChatRequest, decision: Decision) -> Completion:
    """Put a decision in the form of an answer to its request."""
    calls = tuple(
        WireCall(
            f"call_{uuid.uuid4().hex[:24]}",
            call.name,
            json.dumps(dict(call.arguments), ensure_ascii=False),
        )
        for call in decision.tool_calls
    )
    return Completion(
        id=f"chatcmpl-{uuid.uuid4().hex}",
        created=int(time.time()),
        # Its own name whatever was asked for: nobody is to price its tokens as another model's.
        model=DEFAULT_MODEL,
        text=decision.text,
        calls=calls,
        finish_reason="tool_calls" if calls else "stop",
        prompt_tokens=estimated_tokens(_sent(request)),
        completion_tokens=estimated_tokens(
            decision.text + "".join(call.name + call.arguments for call in calls)
        ),
    )


def as_object(completion: Completion) -> dict[str, Any]:
    """The answer as one ``chat.completion`` object."""
    message: dict[str, Any] = {
        "role": "assistant",
        "content": completion.text or None,
        "refusal": None,
    }
    if completion.calls:
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in completion.calls
        ]
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": completion.finish_reason,
    }
    return {**_head(completion, "chat.completion"), "choices": [choice], "usage": completion.usage}


def as_chunks(completion: Completion, *, include_usage: bool) -> Iterator[dict[str, Any]]:
    """The answer as ``chat.completion.chunk`` objects; with usage, one more at the end has it."""
    head = _head(completion, "chat.completion.chunk") | ({"usage": None} if include_usage else {})

    def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return {**head, "choices": [choice]}

    yield chunk({"role": "assistant", "content": "" if completion.text else None})
    for piece in _PIECES.findall(completion.text):
        yield chunk({"content": piece})
    for index, call in enumerate(completion.calls):
        function = {"name": call.name, "arguments": ""}
        opening = {"index": index, "id": call.id, "type": "function", "function": function}
        yield chunk({"tool_calls": [opening]})
        for start in range(0, len(call.arguments), _ARGUMENT_PIECE):
            piece = call.arguments[start : start + _ARGUMENT_PIECE]
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    yield chunk({}, completion.finish_reason)
    if include_usage:
        yield {**head, "choices": [], "usage": completion.usage}


def _head(completion: Completion, kind: str) -> dict[str, Any]:
    about = {"created": completion.created, "model": completion.model}
    return {"id": completion.id, "object": kind, **about}


def _sent(request: ChatRequest) -> str:
    """Everything in the request that a model reads."""
    parts = []
    for message in request.messages:
        parts += [message.role, message.text]
        parts += [call.function.name + call.function.arguments for call in message.tool_calls]
    parts += [tool.model_dump_json(exclude_none=True) for tool in request.tools or ()]
    return "".join(parts)
