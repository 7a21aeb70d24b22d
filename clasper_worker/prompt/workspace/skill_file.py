"""Parsing SKILL.md, in the OpenClaw format: YAML front matter, then instructions in Markdown.

Pure: text in, a `Skill` or a `SkillError` out. Format: https://docs.openclaw.ai/tools/skills. Of
its fields those are read that decide whether a skill is on (``requires.env``, ``requires.bins``,
``requires.anyBins``, ``os``, ``always``: below ``metadata.openclaw``, or at the top where there is
no such block) and what the prompt shows (``name``, ``description``, ``emoji``); all others are
ignored. ``metadata`` may be YAML or a string that holds JSON.

A file without front matter is a skill too: its folder names it, and its first words describe it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from clasper_worker.prompt.front_matter import Doubt, FrontMatter, SkillError, read_front_matter
from clasper_worker.prompt.workspace.skills import Skill

__all__ = ["SkillError", "parse_skill"]

_NAME = re.compile(r"\w[\w .:-]*")
_OS_NAMES = {"macos": "darwin", "mac": "darwin", "windows": "win32"}
_DESCRIPTION_CHARS = 1024
_SHOWN = {"name": 64, "description": _DESCRIPTION_CHARS, "emoji": 32}  # and how long each may be


def parse_skill(file: str, text: str) -> Skill:
    """Parse a SKILL.md; what it requires is not checked here, see `gate`.

    Args:
        file: its path inside the workspace, ``skills/<folder>/SKILL.md``; the folder names the
            skill when the front matter does not.
        text: the file's text.

    Raises:
        SkillError: there is nothing to describe the skill by, the front matter cannot be read, or
            a field that decides whether the skill is on has the wrong form.
    """
    matter = read_front_matter(text)
    doubts = list(matter.doubts)
    fields = {**matter.fields, **_shown(matter, doubts)}
    try:
        front = _FrontMatter.model_validate(fields)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        path = [str(part) for part in error["loc"]]
        problem = f"{'.'.join(path)}: {_say(error)}"
        raise SkillError(matter.line_of(path), problem) from None
    gates = front.gates()
    return Skill(
        name=front.name or PurePosixPath(file).parent.name,
        description=front.description or _described(matter, doubts),
        instructions=matter.body.strip(),
        file=file,
        emoji=gates.emoji,
        requires_env=gates.requires.env,
        requires_bins=gates.requires.bins,
        requires_any_bins=gates.requires.anyBins,
        os=tuple(_OS_NAMES.get(name.lower(), name.lower()) for name in gates.os),
        always=gates.always,
        doubts=tuple((doubt.line, doubt.problem) for doubt in doubts),
    )


def _shown(matter: FrontMatter, doubts: list[Doubt]) -> dict[str, str | None]:
    """The fields that the prompt shows, as text, whatever their authors wrote there."""
    found: dict[str, str | None] = {}
    for name, longest in _SHOWN.items():
        value = matter.fields.get(name)
        text = " ".join(_text_of(value).split())
        problem = ""
        if value is not None and not isinstance(value, str):
            problem = "is not text and was read as such; put it in quotes"
        if len(text) > longest:
            problem = f"is longer than {longest:,} characters and was cut; shorten it"
            text = text[:longest].rstrip()
        if name == "name" and text and _NAME.fullmatch(text) is None:
            problem = "may hold letters, digits, spaces and . _ : - only; the folder's name is used"
            text = ""
        if problem:
            doubts.append(Doubt(matter.line_of([name]), f"{name}: {problem}"))
        found[name] = text or None
    return found


def _text_of(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):  # `Use when: asked` below `description:` is one, to YAML
        return "; ".join(f"{name}: {_text_of(item)}" for name, item in value.items())
    if isinstance(value, list | tuple | set):
        return ", ".join(map(_text_of, value))
    try:
        return str(value)
    except ValueError:  # a number of thousands of digits
        return ""


def _described(matter: FrontMatter, doubts: list[Doubt]) -> str:
    """What the body says first: its first paragraph's first line, else its heading."""
    heading = ""
    for line in matter.body.splitlines():
        text = " ".join(line.strip(" \t#*_>`-=|").split())
        if not text:
            continue
        if line.lstrip().startswith("#"):
            heading = heading or text
            continue
        heading = text
        break
    if not heading:
        raise SkillError(
            matter.first_line if matter.is_there else 1,
            "description: is missing, and there is no text to take it from; add one",
        )
    if matter.is_there:
        problem = "description: is missing; the file's first words are used; add one"
        doubts.append(Doubt(matter.line_of(["description"]), problem))
    return heading[:_DESCRIPTION_CHARS]


_PROBLEMS = {
    "missing": "is missing; add it",
    "string_type": "must be text; put it in quotes",
    "string_too_short": "is empty; fill it in",
    "string_pattern_mismatch": "may hold letters, digits, spaces and . _ : - only",
    "tuple_type": "must be a list",
    "model_type": "must hold fields",
    "dict_type": "must hold fields",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}


def _say(error: ErrorDetails) -> str:
    if error["type"] == "string_too_long":
        return f"is longer than {error['ctx']['max_length']:,} characters; shorten it"
    return _PROBLEMS.get(error["type"]) or error["msg"].removeprefix("Value error, ")


def _one_line_of_text(value: Any) -> Any:
    """An emoji that is none is left out: it decorates."""
    text = " ".join(value.split()) if isinstance(value, str) else ""
    return text[: _SHOWN["emoji"]] or None


def _list(value: Any) -> Any:
    return () if value is None else (value,) if isinstance(value, str) else value


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("is text that is not JSON; write YAML fields or a JSON object") from None


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


Emoji = Annotated[str | None, BeforeValidator(_one_line_of_text)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_list)]


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Requires(_Lenient):
    env: Words = ()
    bins: Words = ()
    anyBins: Words = ()  # noqa: N815 - OpenClaw's spelling


class _Gates(_Lenient):
    emoji: Emoji = None
    requires: Annotated[_Requires, BeforeValidator(_or_empty)] = _Requires()
    os: Words = ()
    always: bool = False


class _Metadata(_Lenient):
    openclaw: _Gates | None = None
    clawdbot: _Gates | None = None  # OpenClaw's earlier name, which its own loader still takes


class _FrontMatter(_Gates):
    name: str | None = None
    description: str | None = None
    metadata: Annotated[_Metadata, BeforeValidator(_or_empty), BeforeValidator(_from_json)] = (
        _Metadata()
    )

    def gates(self) -> _Gates:
        """Where the gating fields stand: below ``metadata.openclaw``, else at the top."""
        return self.metadata.openclaw or self.metadata.clawdbot or self
