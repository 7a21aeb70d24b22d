"""Requests for a plan as a reply, as an instruction before the message or on their own."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clasper_worker.offline_model.asks import find_asks
from clasper_worker.offline_model.drafts import goal_of, plan_text, wanted_steps

_INSTRUCTION = re.compile(
    r"^(?:before[^,\n]*,\s*|first\W+|please\s+|now\s+)*"
    r"(?:draft|write|create|make|prepare|produce|outline|sketch|propose|suggest|describe|give|share"
    r"|lay out|set out|come up with|think through|start (?:by|with))\s+(?:[\w'-]+,?\s+){0,6}?"
    r"(?:plan|approach|steps|roadmap)\b(?! (?:called|named|titled)\b)",
    re.IGNORECASE,
)
_POINTS_ON = re.compile(
    r"[\s,]*(?:(?:based on|from|for|of|to|about|on)\s+)?"
    r"(?:(?:the|this|that|my|their|following|user's)\s+(?:\w+(?:'s)?\s+)?(?:request|message|task|ask|following|text|below|goal|brief)\b|below\b"
    r"|(?:following\b|this|it)(?=\W|$))",
    re.IGNORECASE,
)
_ASKED = re.compile(
    r"(?:\b(?:give|suggest|outline|propose|sketch|share|draft|write|make|prepare|create|need|want"
    r"|come up with|what(?:'s| is| would be| should be)|show|tell)\b[^.?!\n]{0,40}?"
    r"\b(?:plan|approach|roadmap)\b(?!\s+(?:called|named|document))"
    r"|\bbreak\s+(?:\S+\s+){0,6}?(?:down|up)\s+into\s+[^.?!\n]{0,20}?steps"
    r"|\bhow (?:would|should|do|can) (?:you|we|i) (?:plan|approach|tackle|organi[sz]e|go about)\b"
    r"|(?:^|[.!?,:\n]\s*|\bplease |\bhelp (?:me|us) |\bcan you |\bcould you )plan\b"
    r"|\b(?:\d{1,2}|two|three|four|five|six|seven|eight)[\s-]steps?\s+(?:plan|approach)?)"
    r"\s*(?:(?:for|to|on|about|of|of action for)\s+)?(?P<subject>[^.?!\n]{0,200})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Kickoff:
    """An instruction to plan, and the message that it stands before."""

    instruction: str
    message: str


def kickoff_plan(words: str) -> Kickoff | None:
    """Read an instruction that asks for a plan of what follows it, or None.

    The instruction is the first paragraph or line. It points on to the rest (“based on the
    request”, “for the following”) or names no subject of its own, and asks for nothing else.
    """
    for split in (r"\n\s*\n", r"\n"):
        instruction, *rest = re.split(split, words.strip(), maxsplit=1)
        match = _INSTRUCTION.match(instruction)
        if rest and match and _points_on(instruction[match.end() :]):
            return Kickoff(instruction.strip(), rest[0].strip())
    return None


def planned(kickoff: Kickoff) -> str:
    """The plan that a kickoff instruction asks for, drawn from the message."""
    goal = goal_of(kickoff.message) or "the request"
    steps = wanted_steps(kickoff.instruction) or wanted_steps(kickoff.message)
    return plan_text(goal, kickoff.message, steps)


def plan_answer(words: str, earlier: str) -> str | None:
    """A plan as an answer, where the words ask for one; ``earlier`` is what “it” may stand for."""
    match = _ASKED.search(words)
    if match is None:
        return None
    subject = goal_of(match.group("subject"))
    pointing = re.fullmatch(r"(?:it|this|that|them|these|the above)?\W*", subject, re.IGNORECASE)
    others = f"{words[: match.start()]}\n{words[match.end() :]}".strip(" \n.,!?")
    if pointing:
        subject = goal_of(others) or goal_of(earlier) or "the work at hand"
    return plan_text(subject, f"{subject}\n{others or earlier}", wanted_steps(words))


def _points_on(after: str) -> bool:
    """Whether what follows “plan” names the message that follows, or no subject at all."""
    if find_asks(after):
        return False
    own = re.search(r"\b(?:for|to|about|of|on|how|with)\s+\w", after, re.IGNORECASE)
    return own is None or _POINTS_ON.match(after) is not None
