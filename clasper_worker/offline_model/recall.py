"""Answers from the conversation's earlier messages: what was said before, and summaries."""

from __future__ import annotations

import re

from clasper_worker.offline_model.background import prose
from clasper_worker.offline_model.conversation import Conversation
from clasper_worker.offline_model.phrases import (
    counted,
    most_relevant,
    quoted,
    sentences,
    shortened,
)

_YOU_SAID = re.compile(
    r"\bwhat (?:did|have|had) you (?:just |last |previously )?(?:say|said|reply|replied|answer"
    r"|answered|tell|told|suggest|suggested|write|written)"
    r"|\byour (?:last|previous|first|earlier) (?:message|reply|answer|response)\b",
    re.IGNORECASE,
)
_I_SAID = re.compile(
    r"\bwhat (?:did|have|had|was it) (?:i|we)(?: that i)? (?:\w+ ){0,2}?(?:say|said|ask|asked|tell"
    r"|told|write|written|wrote|mention|mentioned|request|requested|want|wanted|talk|talked|discuss"
    r"|discussed)\b"
    r"|\bmy (?:last|previous|first|earlier|original) (?:message|question|request|words)\b"
    r"|\bwhat (?:i|we) (?:just |first |last )?(?:said|asked|told|wrote|mentioned|discussed)\b"
    r"|\b(?:do|can|did|will) you (?:still )?(?:remember|recall)\b"
    r"|\bremind me (?:what|of|who|when|where)\b"
    r"|\bwhat do you (?:remember|know) about (?:me|us|our|my)\b"
    r"|\bhave (?:i|we) (?:told|talked|spoken)\b"
    r"|\bwhat (?:happened|was said) (?:so far|before|earlier)\b"
    r"|\bour (?:conversation|chat)\b.{0,80}\bso far\b"
    r"|\b(?:what|who|when|where)(?:'s| is| was| are) my (?:\w+ ){0,3}?\w+\??\s*$|\bwho am i\b",
    re.IGNORECASE,
)
_FIRST = re.compile(r"\b(?:first|begin|beginning|start|originally|original)\b", re.IGNORECASE)
_LATEST = re.compile(r"\b(?:just|last|previous|previously|a moment ago)\b", re.IGNORECASE)
_OVERALL = re.compile(
    r"\b(?:so far|discuss\w*|talked?|conversation|anything|everything)\b", re.IGNORECASE
)
_SAID = re.compile(r"\b(?:say|said|ask|asked|tell|told|write|wrote|mentioned)\b", re.IGNORECASE)
_SUMMARY = re.compile(
    r"\b(?:summari[sz]e|sum up|recap|tl;?dr|condense|compact|shorten|(?:give|write|make|need|want)"
    r"\b[^.\n]{0,30}\bsummary)\b",
    re.IGNORECASE,
)
_MOST_LINES = 12


def recalled(talk: Conversation) -> str | None:
    """The answer to a question about what was said before; None where it is no such question."""
    if _YOU_SAID.search(talk.asked):
        return _own_reply(talk)
    return _persons_words(talk) if _I_SAID.search(talk.asked) else None


def _own_reply(talk: Conversation) -> str:
    replies = [item.unlabelled for item in talk.history if item.role == "assistant"]
    if not replies:
        return "I have not said anything yet in the history that I was given."
    if _FIRST.search(talk.asked):
        return f"My first reply was {quoted(replies[0])}"
    return f"My last reply was {quoted(replies[-1])}"


def _persons_words(talk: Conversation) -> str:
    said = talk.said_before
    if said and _FIRST.search(talk.asked):
        return f"Your first message was {quoted(said[0])}"
    if said and _LATEST.search(talk.asked):
        return f"Your message before this one was {quoted(said[-1])}"
    sources = {"you told me before": _lines(talk), "I was given about it": prose(talk.system)}
    for where, lines in sources.items():
        if near := most_relevant(talk.asked, lines):
            return f"From what {where}: {quoted(near)}"
    if said and (_OVERALL.search(talk.asked) or _SAID.search(talk.asked)):
        return f"So far, in {counted(len(talk.history), 'message')}:\n\n{_told(talk)}"
    if said:
        return f"None of the {counted(len(talk.history), 'message')} before this says that."
    return "This is the first message that I was given: the history before it is empty."


def summarised(talk: Conversation) -> str | None:
    """A summary made of the text's or the history's own sentences, or None where none is wanted."""
    match = _SUMMARY.search(talk.asked)
    if match is None:
        told_to = not talk.tools and _SUMMARY.search(talk.system[:200])
        return _excerpt(talk.words) if told_to and len(sentences(talk.words)) > 2 else None
    _, _, given = talk.words[match.end() :].partition("\n")
    given = given.strip() or talk.words[match.end() :].partition(":")[2].strip()
    if len(sentences(given)) > 1:
        return _excerpt(given)
    if talk.history:
        return f"In {counted(len(talk.history), 'message')} so far:\n\n{_told(talk)}"
    return "There is nothing before this message to summarise, and no longer text in it."


def _excerpt(text: str) -> str:
    lines = sentences(text)
    picked = "\n".join(f"- {shortened(line, 200)}" for line in _spread(lines))
    return f"In short, from {counted(len(lines), 'sentence')}:\n\n{picked}"


def _told(talk: Conversation) -> str:
    names = {"user": "You", "assistant": "I"}
    return "\n".join(
        f"- {names[item.role]}: {quoted(shortened(item.unlabelled, 200))}"
        for item in talk.history[-_MOST_LINES:]
    )


def _lines(talk: Conversation) -> tuple[str, ...]:
    """What the person said, the newest first, without questions: they hold no answers."""
    return tuple(
        line
        for text in reversed(talk.said_before)
        for line in sentences(text)
        if not line.endswith("?")
    )


def _spread(lines: tuple[str, ...], most: int = 6) -> tuple[str, ...]:
    """Lines from all over a text, its first and last among them."""
    if len(lines) <= most:
        return lines
    return tuple(lines[round(index * (len(lines) - 1) / (most - 1))] for index in range(most))
