"""Replies in text: what tools brought, what the words ask that can be answered, and else an echo.

Each reply begins with the label, and quotes what the person wrote.
"""

from __future__ import annotations

import re

from clasper_worker.offline_model.actions import Action
from clasper_worker.offline_model.background import background
from clasper_worker.offline_model.conversation import LABEL, Conversation
from clasper_worker.offline_model.heads import Kind
from clasper_worker.offline_model.introduction import examples, introduction, related_tool, standing
from clasper_worker.offline_model.kickoff import Kickoff, plan_answer, planned
from clasper_worker.offline_model.phrases import (
    content_words,
    counted,
    key_phrases,
    listed,
    quoted,
    shortened,
)
from clasper_worker.offline_model.quiet import quiet_signal
from clasper_worker.offline_model.recall import recalled, summarised
from clasper_worker.offline_model.results import failure, told

_CLOCK = re.compile(
    r"\bwhat(?:'s| is)?\s+(?:the\s+)?(?:current\s+|exact\s+|local\s+)?(?:time|date|day)(?:\s+and\s+"
    r"(?:time|date|day))?\s*(?:is it|now|today|is today|\?|$|in\b)|\btoday's date\b"
    r"|\btime (?:is it|it is)\b"
    r"|\b(?:which|what) (?:day|date|weekday|month|year) (?:is|are) (?:it|today|we)\b"
    r"|\b(?:current|local) (?:time|date)\b"
    r"|\bwhat(?:'s| is) (?:the )?(?:time|date|day)\b(?! (?:of|for|when|that|by|to)\b)"
    r"|\bknow the (?:time|date)\b",
    re.IGNORECASE,
)
_CLOCK_LINE = re.compile(
    r"^[\s>*_#-]*(?:(?:the\s+)?(?:current|local|today's)\s+)?(?:now|time|date|today|datetime"
    r"|date and time)\b[^:\n\d]{0,30}(?::|\bis\b)(?P<now>[^\n]*\d[^\n]*)$",
    re.IGNORECASE | re.MULTILINE,
)
_LITERAL = re.compile(
    r"^(?:please\s+|now\s+|just\s+)*(?:say|repeat(?: after me)?|echo|(?:reply|respond|answer)"
    r"(?:\s+(?:only|just|exactly))*\s+with)\b(?P<exact>(?:\s+(?:only|just|exactly|the|single|one"
    r"|word|words|phrase|text|sentence|this|following|back))*)\s*:?\s+(?P<value>[^\n]{1,400})",
    re.IGNORECASE,
)
_THANKS = re.compile(
    r"^\W*(?:many )?(?:thanks|thank you|thx|cheers|great|perfect|nice|ok(?:ay)?|got it|bye|goodbye"
    r"|see you)\b[^?]{0,60}$",
    re.IGNORECASE,
)
_QUESTION = re.compile(
    r"\?(?:\s|$)|^\W*(?:what|who|whom|whose|which|when|where|why|how|is|are|can|could|do|does|did|will"
    r"|would|should|may)\b",
    re.IGNORECASE,
)
_FAVOUR = re.compile(
    r"^\W*(?:please\s+|kindly\s+)*(?:(?:can|could|would|will) (?:you|we|i)|write|explain|describe"
    r"|tell|translate|compose|generate|draft|rewrite|improve|compare|analy[sz]e|find|calculate|solve"
    r"|delete|remove|update|change|rename|mark|close|finish|assign|send|move|give|help)\b",
    re.IGNORECASE,
)
_TO_KEEP = re.compile(
    r"\b(?:remember|note that|keep in mind|for your information|fyi|my name is|call me|i prefer"
    r"|i like|from now on)\b",
    re.IGNORECASE,
)


def compose(talk: Conversation, actions: tuple[Action, ...], plan: Kickoff | None) -> str:
    """The reply in text to a request for which no tool is (or is left) to be called."""
    if not talk.words:
        return f"{LABEL} {_without_words(talk)}"
    if plan:
        body = f"{planned(plan)}\n\nDrawn from the request: {quoted(plan.message)}"
        return f"{LABEL} {body}"
    quiet = quiet_signal(talk)
    if quiet:
        return quiet
    parts = [*_done(talk), *_not_done(talk, actions)]
    parts += _answers(talk, actions, acted=bool(parts))
    if not parts:
        return f"{LABEL} {_echo(talk)}"
    wrote = quoted(talk.words)
    if not any(talk.words in part or wrote in part for part in parts):
        parts.append(f"You wrote: {wrote}")
    return f"{LABEL} " + "\n\n".join(parts)


def _without_words(talk: Conversation) -> str:
    if talk.executed:
        return "\n\n".join(told(call) for call in talk.executed)
    earlier = f" Before it came {counted(len(talk.history), 'message')}." if talk.history else ""
    return f"The request holds no user message with text, so there is nothing to answer.{earlier}"


def _done(talk: Conversation) -> list[str]:
    """What the tools brought, headed by whether it all worked."""
    if not talk.executed:
        return []
    failed = sum(failure(call) is not None for call in talk.executed)
    asked = f"You asked: {quoted(talk.words)}"
    if not failed:
        head = f"Done. {asked}"
    elif failed == len(talk.executed):
        head = f"That did not work. {asked}"
    else:
        head = f"Part of this did not work. {asked}"
    return [head, *(told(call) for call in talk.executed)]


def _not_done(talk: Conversation, actions: tuple[Action, ...]) -> list[str]:
    """What was asked for and has no result: no tool for it, a detail missing, a task not made."""
    parts = []
    for action in actions:
        if action.tool is None and action.draft:
            parts.append(
                f"I have no tool here that saves documents, so here is the text.\n\n{action.draft}"
            )
        elif action.tool is None:
            parts.append(f"I could not {action.kind}: {_no_tool(talk)}")
        elif action.question:
            parts.append(f"You asked to “{shortened(action.clause, 80)}”. {action.question}")
        elif action.waits:
            parts.append(f"I did not {action.kind}: the task that it belongs to was not created.")
    return list(dict.fromkeys(parts))


def _no_tool(talk: Conversation) -> str:
    if not talk.tools:
        return "this request came without tools that I may call."
    names = listed(tuple(f"`{tool.name}`" for tool in talk.tools[:12]))
    return f"none of the tools that I was given does that ({names})."


def _answers(talk: Conversation, actions: tuple[Action, ...], *, acted: bool) -> list[str]:
    """Answers to what the words ask besides actions: the time, and the first other that fits."""
    earlier = talk.said_before[-1] if talk.said_before else ""
    documents = any(action.kind is Kind.CREATE_DOCUMENT for action in actions)
    clock = _clock(talk)
    parts = [clock] if clock else []
    answer = recalled(talk) or summarised(talk)
    if not answer and not documents and not acted:
        answer = plan_answer(talk.asked, earlier)
    if not answer and not acted and not clock:
        answer = _literal(talk) or introduction(talk) or _courtesy(talk)
    return [*parts, answer] if answer else parts


def _clock(talk: Conversation) -> str | None:
    if not _CLOCK.search(talk.asked):
        return None
    for where, text in (
        ("came with your message", talk.turn_context),
        ("I was given", talk.system),
    ):
        match = _CLOCK_LINE.search(text)
        if match:
            return f"It is {match.group('now').strip(' *_`.')}, by the clock that {where}."
    return "Nothing that I was given says what time or date it is, so I do not know."


def _literal(talk: Conversation) -> str | None:
    match = _LITERAL.match(talk.asked)
    if match is None:
        return None
    value = match.group("value").strip()
    quote = re.match(r"[\"'“`]([^\"”`]+)[\"'”`]", value)
    if quote:
        return quote.group(1)
    vague = re.match(
        r"(?:a|an|your|some|what|how|if|whether|to|something|me)\b", value, re.IGNORECASE
    )
    return None if vague and not match.group("exact").strip() else value


def _courtesy(talk: Conversation) -> str | None:
    if not _THANKS.search(talk.asked) or len(content_words(talk.words)) > 3:
        return None
    return (
        f"You are welcome. We have exchanged {counted(len(talk.history), 'message')} before this."
    )


def _echo(talk: Conversation) -> str:
    """What is left to say about words that no rule fits: what they say, and what bears on them."""
    question = bool(_QUESTION.search(talk.asked))
    lead = f"{'You asked' if question else 'You wrote'}: {quoted(talk.words)}"
    known = background(talk.words, talk)
    points = tuple(f"“{point}”" for point in key_phrases(talk.words, 5))
    parts = [lead]
    related = related_tool(talk)
    if related:
        parts.append(related)
    if known:
        facts = "\n".join(f"- {shortened(line, 300)}" for line in known)
        parts.append(f"This is what I was given that bears on it:\n\n{facts}")
    elif _TO_KEEP.search(talk.asked) and not question:
        parts.append(
            "Noted. I keep nothing myself: I will know it as long as it comes with the history."
        )
    elif _FAVOUR.search(talk.asked):
        parts.append("That takes a language model, or a tool that I was not given.")
    elif question and not related:
        parts.append(
            "Nothing in my instructions or in this conversation answers that, and without a "
            "language model I would only be guessing."
        )
    if points and not question:
        parts.append(f"The points that I take from it: {listed(points)}.")
    parts.append(standing(talk))
    if able := examples(talk):
        parts.append(f"What I can do here: {able}.")
    return "\n\n".join(parts)
