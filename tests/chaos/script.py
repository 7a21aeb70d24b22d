"""What the turns say and what the model answers: the plan that every check compares with.

A turn's token, ``s03.07``, names its session and its number within it. It stands in the message
that the turn is sent with, in the reply and in the document that a turn with a tool creates; so
whatever a server receives tells which turn it belongs to. ``h03.07`` is the heartbeat of agent 3 in
its slot 7, and ``d03.00`` its standup: the backend shows these to the agents.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

TOOL_WORD = "with a document"
"""In a message: the model creates a document before it replies."""

SLOW_WORD = "slowly"
"""In a message: the model takes long."""

_TOKEN = re.compile(r"\[\[([shd]\d+\.\d+)\]\]")


_OWN_THREADS = {"h": "Heartbeat", "d": "Standup"}


def token_of(session: str, number: int) -> str:
    """The token of a session's turn; sessions are named ``s03``."""
    return f"{session}.{number:02d}"


def session_of(token: str) -> str:
    """The session of a token."""
    return token.partition(".")[0]


def number_of(token: str) -> int:
    """A turn's place in its session, from 0."""
    return int(token.partition(".")[2])


def thread_of(token: str) -> str:
    """The title of the task that everything about a token belongs to."""
    return _OWN_THREADS.get(token[:1]) or f"Thread {session_of(token)}"


def message_for(token: str, *, tool: bool = False, slow: bool = False) -> str:
    """What a turn is sent with."""
    words = [f"Please answer [[{token}]]"]
    words += [TOOL_WORD] * tool + [SLOW_WORD] * slow
    return f"{' '.join(words)}."


def newest_message(messages: Sequence[Mapping[str, Any]]) -> str:
    """What the person said last."""
    said = [message["content"] for message in messages if message["role"] == "user"]
    return _text(said[-1]) if said else ""


def find_token(text: str) -> str | None:
    """The last token in a text, or None."""
    found = _TOKEN.findall(text)
    return str(found[-1]) if found else None


def reply_for(token: str, call: int) -> str:
    """The model's reply to a turn.

    Args:
        token: of the turn.
        call: the number of the model call. A model never says the same twice: where a turn asks
            again and posts what it then hears under the old key, the backend sees another body.
    """
    return f"The answer to [[{token}]] is {_digest(token)} (said in call {call})."


def is_reply_to(token: str, text: str) -> bool:
    """Whether a text is one that the model has said to this turn's message."""
    said = reply_for(token, 0).partition("(said in call ")[0]
    return text.startswith(said) and find_token(text) == token


def next_answer(messages: Sequence[Mapping[str, Any]], call: int) -> tuple[str | None, int, Any]:
    """What the model answers to a conversation.

    Returns:
        The turn's token (None where the newest user message has none), the step (1 for the turn's
        first model call), and the answer's ``message`` as OpenAI's API has it.
    """
    at = max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1)
    asked = newest_message(messages)
    step = 1 + sum(message["role"] == "assistant" for message in messages[at + 1 :])
    token = find_token(asked)
    if token is None:
        return None, step, {"role": "assistant", "content": "I was asked nothing that I know."}
    if TOOL_WORD in asked and step == 1:
        return token, step, {"role": "assistant", "content": None, "tool_calls": [_tool(token)]}
    return token, step, {"role": "assistant", "content": reply_for(token, call)}


def _tool(token: str) -> dict[str, Any]:
    arguments = {"title": f"Document [[{token}]]", "content": f"For [[{token}]]."}
    function = {"name": "create_document", "arguments": json.dumps(arguments)}
    return {"id": f"call_{_digest(token)}", "type": "function", "function": function}


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text", "")) for part in content or ())


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()[:12]
