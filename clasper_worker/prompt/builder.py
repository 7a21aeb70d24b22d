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

``metadata.system_prompt`` replaces ``soul`` to ``memory`` by one section ``override``, and leaves
the notes of the days out too.

Sections of ``turn_context``: ``time``; ``notes:<day>``, the full mode's ``memory/YYYY-MM-DD.md`` of
yesterday and today in the agent's time zone; ``task`` (its title, fenced as data); and
``skill:<name>`` for each forced skill whose instructions are not in ``system``.

With smart context, a `Selection`, only the ``always`` skills' instructions are in ``system``, and
neither ``memory`` nor ``notes:<day>`` is there; the chosen skills and ``memory:<file>:<line>`` of
each chosen piece, best first, end the ``turn_context``. The catalogue stays whole.
"""

from __future__ import annotations

from functools import lru_cache

from clasper_worker.prompt.models import Mode, Prompt, PromptInputs, PromptWarning, Section
from clasper_worker.prompt.sanitize import TURN_CONTEXT_TAG, strip_unsafe
from clasper_worker.prompt.sections import (
    BUILT_IN,
    DEFAULT_RULES,
    DEFAULT_SOUL,
    OUTPUT,
    SAFETY,
    Block,
    join,
    skill_section,
    tagged,
)
from clasper_worker.prompt.turn_context import turn_context
from clasper_worker.prompt.workspace.skills import Skill
from clasper_worker.prompt.workspace.snapshot import (
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

_NAMES_IN_WARNING = 20

_SKILLS_INTRO = (
    "Skills tell you how a kind of work is done here. When one fits the request, follow its"
    " instructions; where they are not given to you, work from its description."
)


def build_prompt(snapshot: WorkspaceSnapshot, inputs: PromptInputs) -> Prompt:
    """Build the prompt of one turn; see this module's text for its sections.

    What depends on the snapshot alone is put together once for each soul and mode and kept in the
    snapshot, so a warm call only joins a few strings.
    """
    chosen = inputs.selection
    smart = chosen is not None and chosen.ranker is not None
    override = _override(inputs)
    persona = override or _persona(snapshot, inputs.role, inputs.mode, smart=smart)
    standing = _standing(snapshot, inputs.mode, smart=smart)
    agent = _agent_section(inputs)
    with_memory = inputs.mode == "full" and override is None
    turn = turn_context(snapshot, inputs, standing.skills, with_memory=with_memory)
    beside = f"<{TURN_CONTEXT_TAG}>\n{turn.text}\n</{TURN_CONTEXT_TAG}>" if turn.text else ""
    together = _shared_text if override is None else _text
    return Prompt(
        system=together(persona.text, standing.text, agent.text),
        turn_context=beside,
        sections=(*persona.sections, *standing.sections, agent, *turn.sections),
        warnings=(*persona.warnings, *standing.warnings, *turn.warnings),
    )


def _text(*blocks: str) -> str:
    return "\n\n".join(blocks)


# Thousands of turns in flight hold one text of some 10,000 characters, instead of one each: with
# an emoji in it, that is 40 kB.
_shared_text = lru_cache(maxsize=64)(_text)


def _override(inputs: PromptInputs) -> Block | None:
    text = strip_unsafe(inputs.system_prompt_override or "").strip()
    return join([Section("override", "request", text)]) if text else None


def _persona(snapshot: WorkspaceSnapshot, role: str, mode: Mode, *, smart: bool) -> Block:
    # Kept by file and not by role: callers choose roles freely, files are few.
    soul_file = snapshot.soul_file(role)
    key = ("persona", soul_file, mode, smart)
    block: Block | None = snapshot.derived.get(key)
    if block is None:
        block = snapshot.derived[key] = _make_persona(snapshot, soul_file, mode, smart=smart)
    return block


def _make_persona(
    snapshot: WorkspaceSnapshot, soul_file: str | None, mode: Mode, *, smart: bool
) -> Block:
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
        text = tagged("file", AGENTS_FILE, DEFAULT_RULES)
        sections[1] = Section("rules", BUILT_IN, text)
    if mode == "full":
        sections.append(_file_section(snapshot, "identity", IDENTITY_FILE))
    sections.append(_file_section(snapshot, "tools", TOOLS_FILE))
    if mode == "full":
        sections.append(_file_section(snapshot, "user", USER_FILE))
        if not smart:
            sections.append(_file_section(snapshot, "memory", MEMORY_FILE))
    return join((section for section in sections if section is not None), warnings)


def _file_section(snapshot: WorkspaceSnapshot, name: str, file: str) -> Section | None:
    text = snapshot.text(file)
    return None if text is None else Section(name, file, tagged("file", file, text))


def _standing(snapshot: WorkspaceSnapshot, mode: Mode, *, smart: bool) -> Block:
    key = ("standing", mode, smart)
    block: Block | None = snapshot.derived.get(key)
    if block is None:
        block = snapshot.derived[key] = _make_standing(snapshot, mode, smart=smart)
    return block


def _make_standing(snapshot: WorkspaceSnapshot, mode: Mode, *, smart: bool) -> Block:
    enabled = [skill for skill in snapshot.skills.values() if skill.enabled]
    always = [skill for skill in enabled if skill.always]
    chosen = always if smart or mode == "minimal" else _within_budget(enabled)
    sections = []
    warnings = []
    if mode == "full" and enabled:
        sections.append(Section("skills", "skills/", _catalogue(enabled)))
        names = {skill.name for skill in chosen}
        left_out = [skill.name for skill in enabled if skill.name not in names]
        if left_out and not smart:
            problem = (
                f"instructions of {len(left_out)} skills are over the"
                f" {SKILL_INSTRUCTION_CHARS:,} characters for all and left out:"
                f" {_names(left_out)}"
            )
            warnings.append(PromptWarning("skills", problem))
    sections += [skill_section(skill) for skill in chosen if skill.instructions]
    sections.append(Section("safety", BUILT_IN, SAFETY))
    sections.append(Section("reply", BUILT_IN, OUTPUT))
    return join(sections, warnings, (skill.name for skill in chosen))


def _names(names: list[str]) -> str:
    more = len(names) - _NAMES_IN_WARNING
    shown = ", ".join(names[:_NAMES_IN_WARNING])
    return shown if more <= 0 else f"{shown} and {more} more"


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
