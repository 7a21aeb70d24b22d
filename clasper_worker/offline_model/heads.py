"""Where an ask begins: the words that open it, and whether they really ask.

Plain patterns over English. What stands in quotes is masked before and never opens an ask. An ask
is taken only at the start of a clause, and not when it is negated (“don't create …”), a question
about how or whether, or about the past (“did you create …”).
"""

from __future__ import annotations

import re
from enum import StrEnum

from clasper_worker.offline_model.masking import QUOTE


class Kind(StrEnum):
    """What is asked for; the value says it in words."""

    CREATE_TASK = "create a task"
    LIST_TASKS = "list tasks"
    CREATE_DOCUMENT = "write a document"
    GET_NOTIFICATIONS = "check notifications"
    POST_MESSAGE = "post a message"
    OTHER = "something else"


Head = tuple[Kind, re.Match[str]]

# Pieces that the patterns below share. Each ends where a word ends.
TASK = r"(?:tasks?|tickets?|to-?dos?|action items?|cards?)"
FEW = (
    r"(?:(?:all|of|my|the|our|any|every|current|open|new|existing|active|unread|recent|latest"
    r"|pending|outstanding|unfinished|for|from|mission control)\s+){0,6}"
)
_ME = r"(?:(?:me|us|up)\s+)?"
_A = r"(?:(?:a|an|another|one|two|three|four|five|some|new|\d)\s+){1,3}"
_ANY = r"(?:(?:a|an|the|my|our|your|this|that|another|one|two|three|some|new)\s+){0,4}"
_WORDS = r"(?:(?!for\b|to\b|about\b|called\b|named\b|titled\b)[\w-]+,?\s+){0,3}?"
_QUOTED = rf"(?:{QUOTE}\s+)?"
_DOC = (
    r"(?P<noun>plan|report|document|doc|brief|briefing|proposal|memo|spec|specification|runbook"
    r"|checklist|guide|analysis|overview|outline|roadmap|strategy|article|blog post|post-mortem"
    r"|retrospective|agenda|faq|guideline)s?\b"
)
_SHOW = (
    r"(?:list|show|display|see|view|get|fetch|give|print|read out|read|pull up|check for|check on"
    r"|check|review|look at|look up|tell)\s+(?:me\s+|us\s+)?"
)
_HAVE_I = r"(?:any|do (?:i|we) have(?: any)?|are there(?: any)?)\s+"

_PATTERNS: tuple[tuple[Kind, tuple[str, ...]], ...] = (
    (
        Kind.CREATE_TASK,
        (
            (
                rf"(?:create|add|make|file|log|register|raise|set up|put in)\s+{_ME}{_ANY}{_WORDS}"
                rf"{_QUOTED}{TASK}\b(?!\s+(?:list|manager|board|force)\b)"
            ),
            rf"(?:open|start|track|need|want)\s+{_ME}{_A}{_WORDS}{_QUOTED}{TASK}\b(?!\s+force\b)",
            rf"new\s+{TASK}\b",
            r"another(?:\s+one|\s+task)?(?=\s+(?:called|named|titled|to|for)\b|:)",
            (
                rf"(?:add|put)\s+(?P<item>[^.!?;\n]{{1,200}}?)\s+(?:as an?\s+(?:new\s+)?{TASK}"
                r"|(?:to|on|onto)\s+(?:my|the|our)\s+"
                rf"(?:{TASK}(?:\s+list)?|list of {TASK}|list|board))\b"
            ),
        ),
    ),
    (
        Kind.LIST_TASKS,
        (
            rf"{_SHOW}(?:(?:what|which|about|out)\s+)?{FEW}(?:list of {TASK}|task list|{TASK})\b",
            rf"(?:what|which)(?:'s| is| are)?\s+{FEW}{TASK}\b",
            (
                r"what(?:'s| is| are)?\s+(?:(?:still|currently|all)\s+)?"
                r"(?:open|outstanding|left to do|pending|on my (?:plate|list|board))\b"
            ),
            (
                rf"(?:{_HAVE_I}|how many\s+|is there (?:already |still )?an?\s+"
                rf"|do (?:i|we) (?:already |still )?have an?\s+)(?:[\w-]+\s+){{0,2}}?{TASK}\b"
            ),
            rf"status of\s+{FEW}{TASK}\b",
            r"my (?:open |current )?tasks(?=\s*\?)",
            r"what (?:do|should) (?:i|we) (?:have|need) to do(?=\W*$)",
            r"what should (?:i|we) do (?:first|next|now|today)\b",
            r"what (?:am i|are we) working on\b",
            rf"{_SHOW}everything\s+(?:(?:that's|that is)\s+)?(?:open|outstanding|pending)\b",
        ),
    ),
    (
        Kind.CREATE_DOCUMENT,
        (
            (
                r"(?:write up|write|draft|create|prepare|produce|compose|generate|put together"
                rf"|author|draw up)\s+{_ME}{_ANY}{_WORDS}{_QUOTED}{_DOC}(?!\s+{TASK})"
            ),
            rf"(?:make|add|save|need|want)\s+{_ME}{_A}{_WORDS}{_QUOTED}{_DOC}(?!\s+{TASK})",
            (
                r"(?:save|store|keep|file|turn|put)\s+"
                r"(?P<kept>(?:that|this|it|your\s+(?:last\s+)?\w+)\s+"
                rf"(?:down\s+)?(?:as|in|into|to))\s+(?:an?\s+|my\s+)?(?:new\s+)?{_QUOTED}{_DOC}"
            ),
        ),
    ),
    (
        Kind.GET_NOTIFICATIONS,
        (
            rf"{_SHOW}(?:what\s+|if i have\s+|whether i have\s+)?{FEW}(?:notifications?|alerts)\b",
            (
                rf"(?:{_HAVE_I}|have (?:i|we)(?: got)?(?: any)?\s+|what(?:'s| are)?\s+|got\s+)"
                rf"{FEW}(?:notifications?|alerts)\b"
            ),
            r"(?:notifications?|alerts)\b",
        ),
    ),
    (
        Kind.POST_MESSAGE,
        (
            (
                rf"(?:post|send|leave|add|write|drop|publish)\s+{_ME}(?:the\s+\w+\s+)?{_ANY}{_WORDS}"
                r"(?:message|comment|update|reply|note)s?\b(?!\s+to\s+me\b)"
            ),
            rf"post\s+(?={QUOTE})",
        ),
    ),
    (
        # Nothing that a tool does, but it ends the ask before it.
        Kind.OTHER,
        (
            (
                r"(?:(?:tell|show|give|let|remind)\s+(?:me|us)|explain|summari[sz]e|say|confirm"
                r"|describe|reply|answer|what|how|when|who|why|which|are there|is there|do you"
                r"|report back)\b"
            ),
        ),
    ),
)
_HEADS = tuple(
    (kind, re.compile(rf"\b{pattern}", re.IGNORECASE))
    for kind, patterns in _PATTERNS
    for pattern in patterns
)

# What may stand right before an ask for it to start a clause.
_LEAD = re.compile(
    r"(?:^|[.!?;:,\n(\u2013\u2014*>-]|\d[.)]"
    r"|\b(?:and|then|also|please|kindly|just|now|first|next|finally|afterwards|lastly|you|i|we"
    r"|ahead|let's|me|us|plus|or|so|quickly|again|well|hi|hello|hey|if|whether|know|but|maybe|there"
    r"|have|ok|okay|i'd like|like|is)"
    r"|\b(?:want|like|need|love|ask|forget|remember|have|try|trying|going|able)\s+"
    r"(?:you\s+|us\s+)?to"
    r"|\b(?:use|using|call|run)\s+(?:the\s+)?[\w-]+(?:\s+tool|\s+function)?\s+(?:to|and)"
    r"|\w+ly)[\s*\"'-]*$",
    re.IGNORECASE,
)
_NOT_ASKED = re.compile(
    r"\b(?:don't|do not|dont|never|not|without|avoid|didn't|did (?:you|i|we|they)|have you|why"
    r"|how (?:do|can|would|should|did|does) (?:i|we|you|one)|how to|should (?:i|we)|do (?:i|we)"
    r"|instead of|rather than|no need to|when (?:do|did|should|can) (?:i|we|you))"
    r"(?:\W+\w+){0,2}\W*$",
    re.IGNORECASE,
)
_FORGET = re.compile(
    r"\b(?:don't|do not|dont|never)\s+(?:forget|hesitate)\b[^.!?\n]*$", re.IGNORECASE
)
_LIST_UNDER = re.compile(r"[^\n]{0,80}\n(?:\s*(?:[-*•]|\d{1,2}[.)])\s+[^\n]+(?:\n|\Z))+")


def find_heads(text: str) -> list[Head]:
    """The openings of asks in a masked text, in order and without overlap."""
    found = [
        (kind, match)
        for kind, pattern in _HEADS
        for match in pattern.finditer(text)
        if is_asked(text, match.start())
    ]
    # The earliest first; of several at one place the most specific, which is listed first.
    found.sort(key=lambda head: head[1].start())
    heads: list[Head] = []
    taken = 0
    for kind, match in found:
        if match.start() < taken:
            continue
        heads.append((kind, match))
        # A list under “create tasks:” is their titles, whatever verbs it begins its lines with.
        under = _LIST_UNDER.match(text, match.end()) if kind is Kind.CREATE_TASK else None
        taken = under.end() if under else match.end()
    return heads


def is_asked(text: str, start: int) -> bool:
    """Whether what starts here begins a clause and is neither negated nor only asked about."""
    before = text[max(0, start - 80) : start]
    if not _LEAD.search(before):
        return False
    return not _NOT_ASKED.search(before) or bool(_FORGET.search(before))
