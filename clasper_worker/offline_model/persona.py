"""Who the system prompt says that the agent is, and which skills it lists."""

from __future__ import annotations

import re
from dataclasses import dataclass

from clasper_worker.offline_model.phrases import shortened

_SCANNED_CHARS = 100_000
_NAME = re.compile(
    r"(?:^[\s>*_#-]*(?:your\s+|agent\s+)?name[*_]*\s*:|\byour name is\b)[*_`\s]*"
    r"(?P<name>[^\n*_`.,;(]{2,40})",
    re.IGNORECASE | re.MULTILINE,
)
_ROLE = re.compile(
    r"^[\s>*_#-]*(?:your\s+|agent[_ ]?)?role[*_`]*\s*[:=][*_`\s]*(?P<role>[^\n*`.;(]{2,60})",
    re.IGNORECASE | re.MULTILINE,
)
_YOU_ARE = re.compile(
    r"\byou(?: are|'re) (?!to\b|not\b|also\b|able\b|given\b|allowed\b|expected\b|here\b)"
    r"(?P<who>[^\n.;:(!?]{2,90})",
    re.IGNORECASE,
)
_WHO_END = re.compile(
    r"\s(?:who|that|which|working|and you|and your|responsible|helping|whose)\b|,\s", re.IGNORECASE
)
_SKILL_TAG = re.compile(r"<skill\b[^>]*?(?:\bname=[\"']([^\"']+)[\"'][^>]*)?>", re.IGNORECASE)
_SKILL_NAME = re.compile(r"<skill\b[^>]*>\s*<name>\s*([^<]+?)\s*</name>", re.IGNORECASE)
_SKILL_HEADING = re.compile(r"^#{1,6}\s+skill\s*[:\u2013-]\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_SKILLS_SECTION = re.compile(
    r"^(#{1,6})\s[^\n]*\bskills\b[^\n]*\n(.*?)(?=^#{1,6}\s|\Z)",
    re.IGNORECASE | re.MULTILINE | re.DOTALL,
)
_SKILL_BULLET = re.compile(r"^\s{0,3}[-*]\s+[*_`\[]*([^\n:*`\]\u2013\u2014]{2,60})", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Persona:
    """The agent as the system prompt describes it; each part is empty where it says nothing."""

    name: str = ""
    role: str = ""
    skills: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """How the agent is called: its name, its role, or both; "" where it has neither."""
        if self.name and self.role and self.name.lower() not in self.role.lower():
            return f"{self.name} ({self.role})"
        return self.role or self.name


def read_persona(system: str) -> Persona:
    """Read name, role and skills from a system prompt."""
    system = system[:_SCANNED_CHARS]
    name, role = _NAME.search(system), _ROLE.search(system)
    who = _YOU_ARE.search(system)
    described = ""
    if who:
        described = _WHO_END.split(who.group("who"), maxsplit=1)[0].strip(" *_`\"'")
    return Persona(
        name=name.group("name").strip() if name else "",
        role=shortened(role.group("role").strip() if role else described, 80),
        skills=_skills(system),
    )


def _skills(system: str) -> tuple[str, ...]:
    found = [match.group(1) for match in _SKILL_NAME.finditer(system)]
    found = found or [match.group(1) or "unnamed" for match in _SKILL_TAG.finditer(system)]
    found = found or [match.group(1) for match in _SKILL_HEADING.finditer(system)]
    if not found:
        section = _SKILLS_SECTION.search(system)
        if section:
            deeper = rf"^#{{{len(section.group(1)) + 1}}}\s+(.+)$"
            after = system[section.start() :].split("\n", 1)[-1]
            found = [match.group(1) for match in _SKILL_BULLET.finditer(section.group(2))]
            found = found or re.findall(deeper, _until_peer(after, len(section.group(1))), re.M)
    return tuple(shortened(item.strip(), 60) for item in found)


def _until_peer(text: str, level: int) -> str:
    """The text up to the next heading of this level or above."""
    return re.split(rf"^#{{1,{level}}}\s", text, maxsplit=1, flags=re.MULTILINE)[0]
