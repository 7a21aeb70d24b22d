"""What a workspace holds and how much of it is told, as data (contract Part 2, ``/context``)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from clasper_worker.config.settings import Settings
from clasper_worker.llm.token_estimate import estimate_tokens
from clasper_worker.prompt.builder import build_prompt
from clasper_worker.prompt.models import PromptInputs
from clasper_worker.prompt.retrieval.selection import Selection
from clasper_worker.prompt.retrieval.smart_context import BY_WORDS
from clasper_worker.prompt.workspace.files import MAX_FILE_CHARS
from clasper_worker.prompt.workspace.skills import Skill
from clasper_worker.prompt.workspace.snapshot import TOP_FILES, WorkspaceSnapshot, soul_path
from clasper_worker.tools.built_in import BUILT_IN_TOOLS


def skills_report(snapshot: WorkspaceSnapshot) -> dict[str, Any]:
    """Every skill, on or off, and what its author should mend."""
    skills = [_skill(skill) for skill in snapshot.skills.values()]
    return {
        "enabled": sum(skill["enabled"] for skill in skills),
        "total": len(skills),
        "skills": skills,
        "warnings": [
            {"file": item.file, "line": item.line, "problem": item.problem}
            for item in snapshot.warnings
            if item.file.startswith("skills")
        ],
    }


def _skill(skill: Skill) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": skill.name,
        "description": skill.description,
        "enabled": skill.enabled,
        "metadata": {
            "file": skill.file,
            "emoji": skill.emoji,
            "always": skill.always,
            "os": list(skill.os),
            "requires": {
                "env": list(skill.requires_env),
                "bins": list(skill.requires_bins),
                "anyBins": list(skill.requires_any_bins),
            },
        },
    }
    if skill.off_reason is not None:
        told["reason"] = skill.off_reason
    return told


def context_report(
    snapshot: WorkspaceSnapshot, role: str, settings: Settings, now: datetime
) -> dict[str, Any]:
    """The files of a workspace and how much of each a turn of ``role`` tells before any message.

    With smart context memory is chosen for each message, so none of it counts here.
    """
    smart = settings.clasper_smart_context
    prompt = build_prompt(
        snapshot,
        PromptInputs(
            role=role,
            now=now,
            timezone=settings.clasper_default_timezone,
            include_time=settings.clasper_include_time_context,
            tool_names=tuple(tool.name for tool in BUILT_IN_TOOLS),
            selection=Selection(BY_WORDS) if smart else None,
        ),
    )
    told = {section.source for section in prompt.sections}
    names = dict.fromkeys((*TOP_FILES, soul_path(role), *sorted(snapshot.files)))
    files = [_file(snapshot, name, told=name in told) for name in names]
    return {
        "workspacePath": str(snapshot.root),
        "maxCharsPerFile": MAX_FILE_CHARS,
        "files": files,
        "totalBootstrapChars": sum(file["injectedChars"] for file in files),
        "systemPromptChars": len(prompt.system),
        "estimatedSystemPromptTokens": estimate_tokens(prompt.system),
    }


def _file(snapshot: WorkspaceSnapshot, name: str, *, told: bool) -> dict[str, Any]:
    file = snapshot.files.get(name)
    text = file.text if file is not None and told else ""
    return {
        "name": name,
        "exists": file is not None,
        "rawChars": 0 if file is None else file.raw_chars,
        "injectedChars": len(text),
        "truncated": file is not None and file.truncated,
        "estimatedTokens": estimate_tokens(text),
    }
