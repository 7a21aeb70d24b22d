"""What can be chosen from one snapshot, indexed: made once per change, asked at each turn."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from clasper_worker.llm.token_estimate import estimate_tokens
from clasper_worker.prompt.retrieval.lexical import FIVE, THREE_TO_FIVE, LexicalIndex, terms
from clasper_worker.prompt.retrieval.selection import Ranked
from clasper_worker.prompt.workspace.memory import MemoryChunk, memory_chunks
from clasper_worker.prompt.workspace.skills import Skill
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from clasper_worker.prompt.retrieval.embedding import Vector, Vectors

LEXICAL_FLOOR = 0.2
"""Of the best score: what has less by words is noise. On the labelled sets this loses nothing."""

MIN_COSINE = 0.15
"""What is less similar than this by meaning is not told."""

SHOWN_BEYOND = 5
"""How many candidates below the count are still named, for whoever asks why."""

_EMBEDDED_INSTRUCTION_CHARS = 1_500


@dataclass(slots=True)
class ContextIndex:
    """The skills and pieces of memory of one snapshot, and the means to rank them.

    Attributes:
        skills: those that are on, have instructions and do not apply always.
        memory: every piece.
        vectors: of the skills and then the memory, one row each, once they are embedded.
        embedding_problem: why they could not be embedded.
        tried: set when embedding them has succeeded, or failed for the first time.
    """

    skills: tuple[Skill, ...]
    memory: tuple[MemoryChunk, ...] = field(repr=False)
    skill_names: tuple[str, ...] = field(repr=False)
    skill_tokens: tuple[int, ...] = field(repr=False)
    memory_names: tuple[str, ...] = field(repr=False)
    memory_tokens: tuple[int, ...] = field(repr=False)
    _skill_words: LexicalIndex | None = field(repr=False)
    _memory_words: LexicalIndex | None = field(repr=False)
    vectors: Vectors | None = field(default=None, repr=False)
    embedding_problem: str | None = None
    tried: threading.Event = field(default_factory=threading.Event, repr=False)

    @classmethod
    def build(cls, snapshot: WorkspaceSnapshot) -> Self:
        """Index a snapshot by words. Takes a second for a megabyte."""
        skills = tuple(
            skill
            for skill in snapshot.skills.values()
            if skill.enabled and skill.instructions and not skill.always
        )
        memory = memory_chunks(snapshot)
        return cls(
            skills=skills,
            memory=memory,
            skill_names=tuple(skill.name for skill in skills),
            memory_names=tuple(chunk.name for chunk in memory),
            skill_tokens=tuple(estimate_tokens(skill.instructions) for skill in skills),
            memory_tokens=tuple(estimate_tokens(chunk.told) for chunk in memory),
            _skill_words=_words([_skill_text(skill) for skill in skills], THREE_TO_FIVE),
            _memory_words=_words([chunk.told for chunk in memory], FIVE),
        )

    def texts_to_embed(self) -> list[str]:
        """What the rows of ``vectors`` are the vectors of."""
        skills = [
            f"{skill.name}: {skill.description}\n{skill.instructions[:_EMBEDDED_INSTRUCTION_CHARS]}"
            for skill in self.skills
        ]
        return [*skills, *(chunk.told for chunk in self.memory)]

    def by_words(self, query: str, skills: int, memory: int) -> tuple[list[Ranked], list[Ranked]]:
        """The best skills and pieces of memory by BM25, and a few beyond those counts."""
        return (
            _best_by_words(self._skill_words, query, skills),
            _best_by_words(self._memory_words, query, memory),
        )

    def by_meaning(
        self, query: Vector, skills: int, memory: int
    ) -> tuple[list[Ranked], list[Ranked]]:
        """The same by cosine similarity; `vectors` must be there.

        Raises:
            ValueError: the vectors have not the same dimension.
        """
        if self.vectors is None:
            raise ValueError("nothing is embedded yet")
        scores = self.vectors @ query
        count = len(self.skills)
        return (
            _best(scores[:count], skills, MIN_COSINE),
            _best(scores[count:], memory, MIN_COSINE),
        )


def _skill_text(skill: Skill) -> str:
    # Name and description twice: they say what the skill is for, the instructions how it is done.
    summary = f"{skill.name}\n{skill.description}\n"
    return f"{summary}{summary}{skill.instructions}"


def _words(documents: Sequence[str], sizes: tuple[int, ...]) -> LexicalIndex | None:
    return LexicalIndex(documents, sizes) if any(terms(text) for text in documents) else None


def _best_by_words(index: LexicalIndex | None, query: str, count: int) -> list[Ranked]:
    if index is None or count == 0:
        return []
    scores = index.scores(query)
    return _best(scores, count, LEXICAL_FLOOR * float(scores.max()))


def _best(scores: NDArray[np.float32], count: int, floor: float) -> list[Ranked]:
    if count == 0:
        return []
    order = (-scores).argsort(kind="stable")[: count + SHOWN_BEYOND]
    ranked = (Ranked(int(position), float(scores[position])) for position in order)
    return [item for item in ranked if item.score > 0 and item.score >= floor]
