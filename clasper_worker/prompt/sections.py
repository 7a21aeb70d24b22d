"""Sections of a prompt, joined: what builder and turn context share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from clasper_worker.prompt.models import Part, PromptWarning, Section
from clasper_worker.prompt.skills import Skill

BUILT_IN = "built in"


@dataclass(frozen=True, slots=True)
class Block:
    """Consecutive sections, joined; ``skills`` are those whose instructions are among them."""

    sections: tuple[Section, ...]
    text: str
    warnings: tuple[PromptWarning, ...] = ()
    skills: frozenset[str] = frozenset()


def join(
    sections: Iterable[Section],
    warnings: Iterable[PromptWarning] = (),
    skills: Iterable[str] = (),
) -> Block:
    """Join sections, a blank line between them."""
    parts = tuple(sections)
    text = "\n\n".join(section.text for section in parts)
    return Block(parts, text, tuple(warnings), frozenset(skills))


def skill_section(skill: Skill, part: Part = "system") -> Section:
    """A skill's instructions as a section."""
    text = tagged("skill", skill.name, skill.instructions)
    return Section(f"skill:{skill.name}", skill.file, text, part)


def tagged(tag: str, name: str, text: str) -> str:
    """A text between tags that name where it comes from."""
    return f'<{tag} name="{name}">\n{text.strip()}\n</{tag}>'
