"""Who the system prompt says that the agent is, and which skills it lists."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from clasper_worker.offline_model.phrases import shortened

_SCANNED_CHARS = 100_000
_NAME = re.compile(
    r"(?:^[\s>*_#-]*(?:your\s+|agent\s+)?name[*_]*\s*:|\byour name is\b)[*_`\s]*"
    r"(?P<name>[^\n*_`.,;(]{2,40})",
    re.IGNORECASE | re.MULTILINE,
)
_ROLE = re.compile(
    r"(?:^[\s>*_#-]*(?:your\s+|agent[_ ]?)?role[*_`]*\s*[:=]|\b(?:in|have|with) the role(?: of)?\b)"
    r"[*_`\s]*(?P<role>[^\n*`.;,(]{2,64})",
    re.IGNORECASE | re.MULTILINE,
)
_YOU_ARE = re.compile(
    r"\byou(?: are|'re) (?!to\b|not\b|also\b|able\b|given\b|allowed\b|expected\b|here\b)"
    r"(?P<who>[^\n.;:(!?]{2,90})",
    re.IGNORECASE,
)
_WHO_END = re.compile(
    r"\s(?:who|that|which|working|and you|and your|responsible|helping|whose)\b|,\s(?!an?\s|the\s)",
    re.IGNORECASE,
)
_SKILL_TAG = re.compile(r"<skill\b[^>]*?(?:\bname=[\"']([^\"']+)[\"'][^>]*)?>", re.IGNORECASE)
_SKILL_NAME = re.compile(r"<skill\b[^>]*>\s*<name>\s*([^<]+?)\s*</name>", re.IGNORECASE)
_SKILL_HEADING = re.compile(r"^#{1,6}\s+skill\s*[:\u2013-]\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_SKILLS_SECTION = re.compile(
    r"^#{1,6}\s[^\n]*\bskills\b[^\n]*\n(.*?)(?=^#{1,6}\s|^<|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_BOLD_BULLET = re.compile(r"^\s{0,3}[-*]\s+[^\n*\w]{0,8}\*\*([^\n*]{1,60})\*\*", re.MULTILINE)
_BULLET = re.compile(r"^\s{0,3}[-*]\s+[`\[]*([^\n:`\]\u2013\u2014]{1,60})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Persona:
    """The agent as the system prompt describes it; each part is empty where it says nothing."""

    name: str = ""
    role: str = ""
    skills: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """How the agent is called: its name, its role, or both; "" where it has neither."""
        known = self.name and self.name.lower() in self.role.lower()
        parts = [] if known or not self.name else [self.name]
        return ", ".join([*parts, self.role] if self.role else parts)


@lru_cache(maxsize=32)  # the same prompt comes with each request
def read_persona(system: str) -> Persona:
    """Read name, role and skills from a system prompt."""
    system = system[:_SCANNED_CHARS]
    name, role = _NAME.search(system), _ROLE.search(system)
    who = _YOU_ARE.search(system)
    described = ""
    if who:
        described = _WHO_END.split(who.group("who"), maxsplit=1)[0].strip(" *_`\"'")
    given = role.group("role").strip() if role else ""
    if described and given.lower() not in described.lower():
        described = f"{described} (role {given})"
    return Persona(
        name=name.group("name").strip() if name else "",
        role=shortened(described or given, 80),
        skills=_skills(system),
    )


def _skills(system: str) -> tuple[str, ...]:
    """The skills' names: those of a catalogue and of tags together, or those of headings."""
    sections = [match.group(1) for match in _SKILLS_SECTION.finditer(system)]
    found = [name for section in sections for name in _BOLD_BULLET.findall(section)]
    found = found or [name for section in sections[:1] for name in _BULLET.findall(section)]
    found += _SKILL_NAME.findall(system) or [name for name in _SKILL_TAG.findall(system) if name]
    found = found or _SKILL_HEADING.findall(system)
    return tuple(dict.fromkeys(shortened(item.strip(), 60) for item in found))
