"""From what a person asks for to tool calls that could answer it, with their arguments."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from clasper_worker.offline_model import drafts
from clasper_worker.offline_model.arguments import action_arguments, spoken_arguments, takes
from clasper_worker.offline_model.asks import Ask, find_asks
from clasper_worker.offline_model.background import background
from clasper_worker.offline_model.conversation import Conversation
from clasper_worker.offline_model.heads import Kind
from clasper_worker.offline_model.phrases import (
    capitalised,
    content_words,
    sentences,
    shortened,
)
from clasper_worker.offline_model.protocol import FunctionSpec
from clasper_worker.offline_model.results import created_id
from clasper_worker.offline_model.toolbox import kind_of, named_in, tool_for

_NO_TOOLS = re.compile(
    r"\b(?:don't|do not|without|no)\s+(?:use|using|call|calling)?\s*(?:any\s+|the\s+)?tools?\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Action:
    """Something asked for, and the call that does it.

    Attributes:
        kind: what is asked for.
        clause: the person's words for it.
        tool: the tool that does it; None where there is none.
        arguments: the call's arguments.
        question: what must be asked back before the call can be made; "" for nothing.
        waits: it is about a task of the same message that has not been created yet.
        draft: the text of a document that is asked for.
    """

    kind: Kind
    clause: str
    tool: FunctionSpec | None
    arguments: dict[str, Any] = field(default_factory=dict)
    question: str = ""
    waits: bool = False
    draft: str = ""


def find_actions(talk: Conversation) -> tuple[Action, ...]:
    """What the newest message asks for, in the order in which it asks."""
    tools = () if _NO_TOOLS.search(talk.asked) else talk.tools
    actions: list[Action] = []
    subject = ""
    for ask in find_asks(talk.asked):
        actions.append(_action(ask, subject, talk, tools))
        subject = _title(ask, "", talk) or subject if ask.kind is Kind.CREATE_TASK else subject
    used = {action.tool.name for action in actions if action.tool}
    sources = _sources(talk)
    actions += [
        Action(
            Kind.OTHER,
            naming.clause,
            naming.tool,
            spoken_arguments(naming.tool, naming.clause, naming.rest, sources),
        )
        for naming in named_in(talk.asked, tools)
        if naming.tool.name not in used
    ]
    return tuple(actions)


def forced_action(tool: FunctionSpec, talk: Conversation) -> Action:
    """A call of this tool, whatever the words say: what ``tool_choice`` may demand."""
    kind = kind_of(tool.name)
    if kind is Kind.OTHER:
        arguments = spoken_arguments(tool, talk.words, talk.words, _sources(talk))
        return Action(kind, talk.words, tool, arguments)
    title = drafts.goal_of(talk.words, 80) or "Untitled"
    values = {
        "title": title,
        "description": shortened(talk.words, 500),
        "content": talk.words or title,
    }
    arguments = action_arguments(tool, values, talk.words, _sources(talk))
    return Action(kind, talk.words, tool, arguments)


def _action(
    ask: Ask, earlier_task: str, talk: Conversation, tools: tuple[FunctionSpec, ...]
) -> Action:
    tool = tool_for(ask.kind, tools)
    values, question, draft = _values(ask, earlier_task, talk)
    follows = ask.refers_back and earlier_task and ask.kind is not Kind.CREATE_TASK
    waits = False
    if tool and follows and takes(tool, "task_id") and tool_for(Kind.CREATE_TASK, tools):
        made = _made_task(talk)
        values |= {"task_id": made} if made else {}
        waits = made is None
    arguments = action_arguments(tool, values, ask.clause, _sources(talk)) if tool else {}
    return Action(ask.kind, ask.clause, tool, arguments, question, waits, draft)


def _values(ask: Ask, earlier_task: str, talk: Conversation) -> tuple[dict[str, str], str, str]:
    """The values of an action, what must be asked back, and the document's text."""
    if ask.kind is Kind.CREATE_TASK:
        title = _title(ask, earlier_task, talk)
        question = "" if title else "What should the task be called?"
        return {"title": title, "description": ask.text}, question, ""
    if ask.kind is Kind.POST_MESSAGE:
        return {"content": ask.text}, "" if ask.text else "What should the message say?", ""
    if ask.kind is Kind.CREATE_DOCUMENT:
        if ask.saves:
            return _saved(ask, talk)
        subject = ask.subject or earlier_task or ask.title or _meant(ask, talk)
        title = ask.title or drafts.document_title(ask.doc_type, drafts.goal_of(subject, 100))
        details = "\n".join(_other_sentences(talk.asked))
        known = background(subject, talk)
        draft = drafts.document_text(title, ask.doc_type, subject, talk.words, details, known)
        return {"title": title, "content": draft, "doc_type": ask.doc_type}, "", draft
    return {}, "", ""


def _saved(ask: Ask, talk: Conversation) -> tuple[dict[str, str], str, str]:
    """The values of a document that keeps the last reply."""
    said = next((item for item in reversed(talk.history) if item.role == "assistant"), None)
    if said is None:
        return {}, "There is no earlier reply of mine to save: what should it say?", ""
    title = ask.title or drafts.document_title(ask.doc_type, drafts.goal_of(said.unlabelled, 80))
    return {"title": title, "content": said.text, "doc_type": ask.doc_type}, "", said.text


def _title(ask: Ask, earlier_task: str, talk: Conversation) -> str:
    if ask.title:
        return ask.title
    if ask.refers_back:
        return capitalised(earlier_task or drafts.goal_of(_meant(ask, talk), 100))
    others = _other_sentences(talk.asked)
    return capitalised(drafts.goal_of(others[0], 100)) if others else ""


def _meant(ask: Ask, talk: Conversation) -> str:
    """What “it” or “this” stands for: the sentence before, else what was said before, else all."""
    before = [line for line in sentences(ask.before) if len(content_words(line)) > 1]
    if before:
        return before[-1]
    others = _other_sentences(talk.asked)
    return " ".join(others) if others else next(reversed(talk.said_before), talk.words)


def _other_sentences(words: str) -> tuple[str, ...]:
    """The sentences that ask for no action and say something."""
    return tuple(
        line
        for line in sentences(words)
        if len(content_words(line)) > 1 and not line.endswith("?") and not find_asks(line)
    )


def _sources(talk: Conversation) -> tuple[str, ...]:
    return (talk.words, talk.turn_context, talk.system)


def _made_task(talk: Conversation) -> str | None:
    calls = (call for call in talk.executed if kind_of(call.name) is Kind.CREATE_TASK)
    return next((made for call in calls if (made := created_id(call))), None)
