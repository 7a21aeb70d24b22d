"""The part of a prompt that changes with each turn: time, notes, task, chosen skills and memory.

It stands beside the newest message; its sections are listed in `clasper_worker.prompt.builder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from clasper_worker.prompt.models import PromptInputs, PromptWarning, Section
from clasper_worker.prompt.retrieval.selection import Selection
from clasper_worker.prompt.sanitize import fence_data, shorten
from clasper_worker.prompt.sections import BUILT_IN, Block, join, skill_section, tagged
from clasper_worker.prompt.workspace.skills import Skill
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot, note_path

TASK_TITLE_CHARS = 500
"""Characters of a task's title in ``turn_context``."""

_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_DAY = timedelta(days=1)
_MAX_ZONES = 1024  # there are about 600 names


def turn_context(
    snapshot: WorkspaceSnapshot,
    inputs: PromptInputs,
    present: frozenset[str],
    *,
    with_memory: bool,
) -> Block:
    """The sections of one turn.

    Args:
        snapshot: the workspace.
        inputs: the turn's.
        present: skills whose instructions are in the system prompt already.
        with_memory: whether notes and pieces of memory may be told.
    """
    warnings = []
    sections = []
    zone = _zone(inputs.timezone)
    if zone is None:
        problem = f"unknown time zone {inputs.timezone[:64]!r}; UTC is used"
        warnings.append(PromptWarning("timezone", problem))
    local = inputs.now.astimezone(zone or UTC)
    chosen = inputs.selection
    if inputs.include_time:
        text = _tell_time(local, zone or UTC)
        sections.append(Section("time", BUILT_IN, text, "turn_context"))
    if with_memory and (chosen is None or chosen.ranker is None):
        sections += _notes(snapshot, local.date())
    if inputs.task_title and inputs.task_title.strip():
        title = shorten(inputs.task_title.strip(), TASK_TITLE_CHARS, " [cut]")
        text = "The current Mission Control task:\n" + fence_data("task title", title)
        sections.append(Section("task", "request", text, "turn_context"))
    forced = _forced(snapshot, inputs.forced_skills, warnings)
    sections += [_skill(skill) for skill in forced if skill.name not in present]
    if chosen is not None:
        present = present.union(skill.name for skill in forced)
        sections += _chosen(snapshot, chosen, present, with_memory=with_memory)
        if chosen.problem is not None:
            warnings.append(PromptWarning("smart_context", chosen.problem))
    return join(sections, warnings)


def _forced(
    snapshot: WorkspaceSnapshot, names: Iterable[str], warnings: list[PromptWarning]
) -> list[Skill]:
    """The forced skills that can be told; a warning for each other one."""
    skills = []
    for name in dict.fromkeys(names):
        skill = snapshot.skills.get(name)
        if skill is None:
            warnings.append(PromptWarning("forced_skills", f"no skill named {name[:64]!r}"))
        elif skill.off_reason is not None:
            problem = f"{name} is off: {skill.off_reason}"
            warnings.append(PromptWarning("forced_skills", problem))
        elif skill.instructions:
            skills.append(skill)
    return skills


def _skill(skill: Skill) -> Section:
    return skill_section(skill, "turn_context")


def _chosen(
    snapshot: WorkspaceSnapshot, chosen: Selection, present: frozenset[str], *, with_memory: bool
) -> Iterator[Section]:
    for name in chosen.skills:
        if name not in present:
            yield _skill(snapshot.skills[name])
    for chunk in chosen.memory if with_memory else ():
        text = tagged("memory", chunk.name, chunk.told)
        yield Section(f"memory:{chunk.name}", chunk.file, text, "turn_context")


def _notes(snapshot: WorkspaceSnapshot, today: date) -> Iterator[Section]:
    for day in (today - _DAY, today):
        if (text := snapshot.text(note_path(day))) is not None:
            told = tagged("file", note_path(day), text)
            yield Section(f"notes:{day}", note_path(day), told, "turn_context")


def _tell_time(local: datetime, zone: tzinfo) -> str:
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
