"""What smart context chose for one message: frozen data between the ranker and the builder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from clasper_worker.prompt.workspace.memory import MemoryChunk

Kind = Literal["skill", "memory"]


@dataclass(frozen=True, slots=True)
class SmartLimits:
    """How much may be chosen for one message.

    Attributes:
        max_skills: skills whose instructions are told, forced ones not counted.
        max_memory: pieces of memory that are told.
        max_tokens: estimated tokens of both together, forced skills not counted; 0: no limit.
    """

    max_skills: int = 5
    max_memory: int = 3
    max_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A skill or a piece of memory that was considered.

    Attributes:
        kind: which of the two.
        name: the skill's name, or the piece's file and line.
        score: how well it fits, on the ranker's own scale; comparable within one kind alone.
        tokens: what it would take, estimated.
        left_out: why it was not chosen; None when it was.
    """

    kind: Kind
    name: str
    score: float
    tokens: int
    left_out: str | None = None


@dataclass(frozen=True, slots=True)
class Selection:
    """What is told beside one message.

    Attributes:
        ranker: what ranked: ``bm25``, ``local:<model>``, ``openai:<model>``; None: nothing did, so
            the full context is told.
        skills: names of the chosen skills, best first.
        memory: the chosen pieces, best first.
        candidates: the chosen, and the best of those left out, each kind best first.
        problem: why the ranker is not the configured one, or why there is none.
    """

    ranker: str | None
    skills: tuple[str, ...] = ()
    memory: tuple[MemoryChunk, ...] = field(default=(), repr=False)
    candidates: tuple[Candidate, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate's place in its index, and its score there."""

    position: int
    score: float


def choose(
    kind: Kind,
    ranked: Sequence[Ranked],
    names: Sequence[str],
    tokens: Sequence[int],
    *,
    count: int,
    budget: int | None,
) -> tuple[list[int], list[Candidate]]:
    """Take the best that fit; what is too large for the budget is passed over.

    Args:
        kind: for the candidates.
        ranked: best first.
        names: of all, by position.
        tokens: of all, by position.
        count: how many may be taken.
        budget: tokens that they may have together; None: any.

    Returns:
        The positions taken, and what became of each in ``ranked``.
    """
    taken: list[int] = []
    candidates = []
    left = budget
    for item in ranked:
        size = tokens[item.position]
        if len(taken) >= count:
            reason: str | None = f"over the count of {count}"
        elif left is not None and size > left:
            reason = f"over the token budget: {left} left"
        else:
            reason = None
            taken.append(item.position)
            left = None if left is None else left - size
        candidates.append(Candidate(kind, names[item.position], item.score, size, reason))
    return taken, candidates
