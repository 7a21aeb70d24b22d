"""Who answers here, and what it can do: from the system prompt and the tools that came along."""

from __future__ import annotations

import re

from clasper_worker.offline_model.conversation import Conversation
from clasper_worker.offline_model.heads import Kind
from clasper_worker.offline_model.persona import read_persona
from clasper_worker.offline_model.phrases import (
    capitalised,
    content_words,
    counted,
    listed,
    shortened,
)
from clasper_worker.offline_model.toolbox import related_to, tool_for

_GREETING = re.compile(
    r"^\W*(?:hi|hello|hey|hiya|howdy|greetings|good (?:morning|afternoon|evening|day))\b",
    re.IGNORECASE,
)
_ABOUT_YOU = re.compile(
    r"\bwhat (?:can|could|do|will) you (?:do|help|offer)|\bhow can you help|\bwho are you\b"
    r"|\bwhat are you\b|\bwhat(?:'s| is| are) your (?:name|role|job|skills?|tools?|purpose"
    r"|instructions)\b|\b(?:which|what) (?:tools|skills)\b|\bintroduce yourself\b|^\W*help\W*$"
    r"|\babout yourself\b|\byour capabilities\b|\bare you (?:there|a (?:bot|human|real)|an? ai)\b",
    re.IGNORECASE,
)
_EXAMPLES = {
    Kind.CREATE_TASK: "create a task called 'Review the draft'",
    Kind.LIST_TASKS: "list my tasks",
    Kind.CREATE_DOCUMENT: "write a plan for the launch",
    Kind.GET_NOTIFICATIONS: "any notifications?",
    Kind.POST_MESSAGE: "post a message saying 'The draft is ready'",
}


def introduction(talk: Conversation) -> str | None:
    """An answer to a greeting or to “what can you do”; None where the words are neither."""
    greeted, asked = _GREETING.search(talk.asked), _ABOUT_YOU.search(talk.asked)
    if not asked and not (greeted and len(content_words(talk.words)) <= 4):
        return None
    persona = read_persona(talk.system)
    who = f"as **{persona.called}**" if persona.called else "for your agent"
    hello = "Hello! " if greeted else ""
    parts = [
        (
            f"{hello}I answer {who} while no language model is connected: I follow rules, so "
            "expect plain answers, real tool calls, and no guesses."
        )
    ]
    if talk.tools:
        lines = (
            f"- `{tool.name}`{f': {shortened(tool.description, 120)}' if tool.description else ''}"
            for tool in talk.tools[:20]
        )
        parts.append("\n".join([f"I was given {counted(len(talk.tools), 'tool')}:", *lines]))
    else:
        parts.append("I was given no tools, so I can only write back.")
    if persona.skills:
        names = listed(persona.skills[:10])
        parts.append(f"My instructions list {counted(len(persona.skills), 'skill')}: {names}.")
    if able := examples(talk):
        parts.append(f"For example, say {able}.")
    return "\n\n".join(parts)


def related_tool(talk: Conversation) -> str:
    """A tool whose name shares a word with what was written, and how to have it called."""
    tool = related_to(talk.words, talk.tools)
    if tool is None:
        return ""
    about = f" ({shortened(tool.description, 200).rstrip('.')})" if tool.description else ""
    return f"The tool `{tool.name}`{about} may help: tell me to use it by its name, and for what."


def standing(talk: Conversation) -> str:
    """Who answers, and what is at hand for it, in a sentence."""
    persona = read_persona(talk.system)
    given = [f"{counted(len(talk.tools), 'tool')}"]
    if persona.skills:
        given.append(counted(len(persona.skills), "skill"))
    given.append(f"{counted(len(talk.history), 'earlier message')}")
    who = f"as **{persona.called}**" if persona.called else "in place of a language model"
    return f"I answer {who} by rules, with {listed(tuple(given))} at hand."


def examples(talk: Conversation) -> str:
    """Up to three things to say that the tools at hand can do; "" where there is none."""
    from_tools = (kind for kind in _EXAMPLES if tool_for(kind, talk.tools))
    return listed(tuple(f"“{capitalised(_EXAMPLES[kind])}”" for kind in from_tools)[:3], "or")
