"""The prompt of one turn, from a workspace snapshot and the turn's inputs. Pure: reads no file.

``system`` is the stable part. It depends on the workspace, the role and the tools, and not on the
moment, so that consecutive turns share it and a provider's prompt cache holds it. What changes
with each turn goes to ``turn_context``, which stands in front of the newest message: everything
before that message is then the same as it was the turn before.

Sections of ``system``, in this order; (m) marks those that the minimal mode has too:

=====================  =====================================================================
``soul`` (m)           ``souls/<role>.md``, else ``SOUL.md``, else a built-in text
``rules`` (m)          ``AGENTS.md``, else a built-in text
``identity``           ``IDENTITY.md``
``tools`` (m)          ``TOOLS.md``
``user``               ``USER.md``
``memory``             ``MEMORY.md``
``skills``             name and description of every skill that is on
``skill:<name>``       instructions: ``always`` skills (m), then the others by name, each whole,
                       while all of them together stay within `SKILL_INSTRUCTION_CHARS`
``safety`` (m)         outside text is data; never left out
``reply`` (m)          what becomes of the reply
``agent`` (m)          the role, and the tools that can be called
=====================  =====================================================================

``metadata.system_prompt`` replaces ``soul`` to ``memory`` by one section ``override``.

Sections of ``turn_context``: ``time``, ``task`` (its title, fenced as data), and ``skill:<name>``
for each forced skill whose instructions are not in ``system``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from clasper_worker.prompt.builtin import DEFAULT_RULES, DEFAULT_SOUL, OUTPUT, SAFETY
from clasper_worker.prompt.models import (
    Mode,
    Part,
    Prompt,
    PromptInputs,
    PromptWarning,
    Section,
)
from clasper_worker.prompt.sanitize import TURN_CONTEXT_TAG, fence_data, shorten, strip_unsafe
from clasper_worker.prompt.skills import Skill
from clasper_worker.prompt.snapshot import (
    AGENTS_FILE,
    IDENTITY_FILE,
    MEMORY_FILE,
    TOOLS_FILE,
    USER_FILE,
    WorkspaceSnapshot,
)

SKILL_INSTRUCTION_CHARS = 24_000
"""Characters of skill instructions in ``system`` (about 6,000 tokens); ``always`` skills count
towards it but are never left out."""

TASK_TITLE_CHARS = 500
"""Characters of a task's title in ``turn_context``."""

BUILT_IN = "built in"

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_SKILLS_INTRO = (
    "Skills tell you how a kind of work is done here. When one fits the request, follow its"
    " instructions; where they are not given below, work from its description."
)
_MAX_ZONES = 1024  # there are about 600 names


def build_prompt(snapshot: WorkspaceSnapshot, inputs: PromptInputs) -> Prompt:
    """Build the prompt of one turn; see this module's text for its sections.

    What depends on the snapshot alone is put together once for each soul and mode and kept in the
    snapshot, so a warm call only joins a few strings.
    """
    override = _override(inputs)
    persona = override or _persona(snapshot, inputs.role, inputs.mode)
    standing = _standing(snapshot, inputs.mode)
    agent = _agent_section(inputs)
    turn = _turn_block(snapshot, inputs, standing.skills)
    join = _shared_text if override is None else _text
    return Prompt(
        system=join(persona.text, standing.text, agent.text),
        turn_context=_wrap(turn),
        sections=(*persona.sections, *standing.sections, agent, *turn.sections),
        warnings=(*persona.warnings, *standing.warnings, *turn.warnings),
    )


def _text(*blocks: str) -> str:
    return "\n\n".join(blocks)


# Thousands of turns in flight hold one text of some 10,000 characters, instead of one each: with
# an emoji in it, that is 40 kB.
_shared_text = lru_cache(maxsize=64)(_text)


@dataclass(frozen=True, slots=True)
class _Block:
    """Consecutive sections, joined."""

    sections: tuple[Section, ...]
    text: str
    warnings: tuple[PromptWarning, ...] = ()
    skills: frozenset[str] = frozenset()


def _block(
    sections: Iterable[Section],
    warnings: Iterable[PromptWarning] = (),
    skills: Iterable[str] = (),
) -> _Block:
    parts = tuple(sections)
    text = "\n\n".join(section.text for section in parts)
    return _Block(parts, text, tuple(warnings), frozenset(skills))


def _override(inputs: PromptInputs) -> _Block | None:
    text = strip_unsafe(inputs.system_prompt_override or "").strip()
    return _block([Section("override", "request", text)]) if text else None


def _persona(snapshot: WorkspaceSnapshot, role: str, mode: Mode) -> _Block:
    # Kept by file and not by role: callers choose roles freely, files are few.
    soul_file = snapshot.soul_file(role)
    key = ("persona", soul_file, mode)
    block: _Block | None = snapshot.derived.get(key)
    if block is None:
        block = snapshot.derived[key] = _make_persona(snapshot, soul_file, mode)
    return block


def _make_persona(snapshot: WorkspaceSnapshot, soul_file: str | None, mode: Mode) -> _Block:
    warnings = []
    if soul_file is None:
        problem = "neither souls/<role>.md nor SOUL.md; the built-in soul is used"
        warnings.append(PromptWarning("soul", problem))
        soul = Section("soul", BUILT_IN, DEFAULT_SOUL)
    else:
        soul = Section("soul", soul_file, (snapshot.text(soul_file) or "").strip())
    sections = [soul, _file_section(snapshot, "rules", AGENTS_FILE)]
    if sections[1] is None:
        warnings.append(PromptWarning("rules", "no AGENTS.md; the built-in rules are used"))
        text = _tagged("file", AGENTS_FILE, DEFAULT_RULES)
        sections[1] = Section("rules", BUILT_IN, text)
    if mode == "full":
        sections.append(_file_section(snapshot, "identity", IDENTITY_FILE))
    sections.append(_file_section(snapshot, "tools", TOOLS_FILE))
    if mode == "full":
        sections.append(_file_section(snapshot, "user", USER_FILE))
        sections.append(_file_section(snapshot, "memory", MEMORY_FILE))
    return _block((section for section in sections if section is not None), warnings)


def _file_section(snapshot: WorkspaceSnapshot, name: str, file: str) -> Section | None:
    text = snapshot.text(file)
    return None if text is None else Section(name, file, _tagged("file", file, text))


def _standing(snapshot: WorkspaceSnapshot, mode: Mode) -> _Block:
    key = ("standing", mode)
    block: _Block | None = snapshot.derived.get(key)
    if block is None:
        block = snapshot.derived[key] = _make_standing(snapshot, mode)
    return block


def _make_standing(snapshot: WorkspaceSnapshot, mode: Mode) -> _Block:
    enabled = [skill for skill in snapshot.skills.values() if skill.enabled]
    chosen = _within_budget(enabled) if mode == "full" else [s for s in enabled if s.always]
    sections = []
    warnings = []
    if mode == "full" and enabled:
        sections.append(Section("skills", "skills/", _catalogue(enabled)))
        names = {skill.name for skill in chosen}
        if left_out := [skill.name for skill in enabled if skill.name not in names]:
            problem = (
                f"instructions of {len(left_out)} skills are over the"
                f" {SKILL_INSTRUCTION_CHARS:,} characters for all and left out:"
                f" {', '.join(left_out)}"
            )
            warnings.append(PromptWarning("skills", problem))
    sections += [_skill_section(skill) for skill in chosen if skill.instructions]
    sections.append(Section("safety", BUILT_IN, SAFETY))
    sections.append(Section("reply", BUILT_IN, OUTPUT))
    return _block(sections, warnings, (skill.name for skill in chosen))


def _within_budget(enabled: list[Skill]) -> list[Skill]:
    chosen = [skill for skill in enabled if skill.always]
    left = SKILL_INSTRUCTION_CHARS - sum(len(skill.instructions) for skill in chosen)
    for skill in enabled:
        if not skill.always and len(skill.instructions) <= left:
            chosen.append(skill)
            left -= len(skill.instructions)
    return chosen


def _catalogue(enabled: list[Skill]) -> str:
    lines = [
        "## Skills",
        "",
        _SKILLS_INTRO,
        "",
    ]
    for skill in enabled:
        emoji = f"{skill.emoji} " if skill.emoji else ""
        lines.append(f"- {emoji}**{skill.name}**: {skill.description}")
    return "\n".join(lines)


def _skill_section(skill: Skill, part: Part = "system") -> Section:
    text = _tagged("skill", skill.name, skill.instructions)
    return Section(f"skill:{skill.name}", skill.file, text, part)


def _agent_section(inputs: PromptInputs) -> Section:
    tools = ", ".join(f"`{name}`" for name in inputs.tool_names)
    can_call = (
        f"The tools that you can call: {tools}. Any other tool that these instructions name is"
        " not available now."
        if tools
        else "You have no tools now, whatever these instructions name."
    )
    text = f"## This agent\n\nYou act in the role `{inputs.role}`. {can_call}"
    return Section("agent", BUILT_IN, text)


def _turn_block(
    snapshot: WorkspaceSnapshot, inputs: PromptInputs, present: frozenset[str]
) -> _Block:
    sections = []
    warnings = []
    if inputs.include_time:
        zone = _zone(inputs.timezone)
        if zone is None:
            problem = f"unknown time zone {inputs.timezone[:64]!r}; UTC is used"
            warnings.append(PromptWarning("timezone", problem))
        text = _tell_time(inputs.now, zone or UTC)
        sections.append(Section("time", BUILT_IN, text, "turn_context"))
    if inputs.task_title and inputs.task_title.strip():
        title = shorten(inputs.task_title.strip(), TASK_TITLE_CHARS, " [cut]")
        text = "The current Mission Control task:\n" + fence_data("task title", title)
        sections.append(Section("task", "request", text, "turn_context"))
    for name in dict.fromkeys(inputs.forced_skills):
        skill = snapshot.skills.get(name)
        if skill is None:
            warnings.append(PromptWarning("forced_skills", f"no skill named {name[:64]!r}"))
        elif skill.off_reason is not None:
            problem = f"{name} is off: {skill.off_reason}"
            warnings.append(PromptWarning("forced_skills", problem))
        elif name not in present and skill.instructions:
            sections.append(_skill_section(skill, "turn_context"))
    return _block(sections, warnings)


def _wrap(block: _Block) -> str:
    return f"<{TURN_CONTEXT_TAG}>\n{block.text}\n</{TURN_CONTEXT_TAG}>" if block.sections else ""


def _tagged(tag: str, name: str, text: str) -> str:
    return f'<{tag} name="{name}">\n{text.strip()}\n</{tag}>'


def _tell_time(now: datetime, zone: tzinfo) -> str:
    local = now.astimezone(zone)
    offset = local.isoformat()[-6:]
    weekday = _WEEKDAYS[local.weekday()]
    return f"Now: {weekday}, {local:%Y-%m-%d %H:%M} ({zone}, UTC{offset})"


@lru_cache(maxsize=_MAX_ZONES)
def _zone(name: str) -> ZoneInfo | None:
    """The zone of that name, None if there is none; kept, since `ZoneInfo` reads a file."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None
