"""What was given besides the newest message, and which of it bears on a subject."""

from __future__ import annotations

import re
from functools import lru_cache

from clasper_worker.offline_model.conversation import Conversation
from clasper_worker.offline_model.phrases import most_relevant, sentences

# A line break that only wraps a paragraph.
_WRAPPED = re.compile(r"(?<=\S)\n(?=[ \t]*[^\s\-*•#<\d|>])")
_CONDUCT = re.compile(r"#+\s+(?:safety|your reply|this agent|skills|tools)\b", re.IGNORECASE)


def background(subject: str, talk: Conversation) -> tuple[str, ...]:
    """Lines of the conversation and the instructions that bear on a subject, the nearest first."""
    earlier = tuple(line for text in reversed(talk.said_before) for line in sentences(text))
    lines = (most_relevant(subject, earlier), most_relevant(subject, prose(talk.system)))
    return tuple(line for line in lines if line and line != subject)


@lru_cache(maxsize=32)  # the same instructions come with each request
def prose(system: str) -> tuple[str, ...]:
    """The sentences of a prompt that may hold facts: no headings, markup or rules of conduct."""
    kept: list[str] = []
    for section in re.split(r"^(?=#{1,6}\s)", system, flags=re.MULTILINE):
        if not _CONDUCT.match(section):
            kept += sentences(_WRAPPED.sub(" ", section))
    plain = (re.sub(r"\*\*|`", "", line).strip(" -*>\t") for line in kept if line[0] not in "#<")
    return tuple(line for line in plain if len(line.split()) > 3)
