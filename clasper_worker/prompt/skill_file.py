"""Parsing SKILL.md, in the OpenClaw format: YAML front matter, then instructions in Markdown.

Pure: text in, a `Skill` or a `SkillError` out. Format: https://docs.openclaw.ai/tools/skills. Of
its fields those are read that decide whether a skill is on (``requires.env``, ``requires.bins``,
``requires.anyBins``, ``os``, ``always``: below ``metadata.openclaw``, or at the top where there is
no such block) and what the prompt shows (``name``, ``description``, ``emoji``); all others are
ignored. ``metadata`` may be YAML or a string that holds JSON.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any

import yaml
from frontmatter.default_handlers import SafeLoader, YAMLHandler
from pydantic import BaseModel, BeforeValidator, ConfigDict, StringConstraints, ValidationError
from pydantic_core import ErrorDetails

from clasper_worker.prompt.skills import Skill

_MAX_NESTING = 32
_OS_NAMES = {"macos": "darwin", "mac": "darwin", "windows": "win32"}
_HANDLER = YAMLHandler()


class SkillError(Exception):
    """A SKILL.md that cannot be used.

    Attributes:
        line: where in the file, from 1.
        problem: what is wrong and how to mend it.
    """

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(f"line {line}: {problem}")


def parse_skill(file: str, text: str) -> Skill:
    """Parse a SKILL.md; what it requires is not checked here, see `gate`.

    Args:
        file: its path inside the workspace, ``skills/<folder>/SKILL.md``; the folder names the
            skill when the front matter does not.
        text: the file's text, LF line ends.

    Raises:
        SkillError: there is no front matter, it is not YAML, or a field has the wrong form.
    """
    source, first_line, body = _split(text)
    data = _load_yaml(source, first_line)
    try:
        front = _FrontMatter.model_validate(data)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        path = [str(part) for part in error["loc"]]
        problem = f"{'.'.join(path)}: {_say(error)}"
        raise SkillError(_line_of(source, path, first_line), problem) from None
    gates = front.gates()
    return Skill(
        name=front.name or PurePosixPath(file).parent.name,
        description=front.description,
        instructions=body.strip(),
        file=file,
        emoji=gates.emoji,
        requires_env=gates.requires.env,
        requires_bins=gates.requires.bins,
        requires_any_bins=gates.requires.anyBins,
        os=tuple(_OS_NAMES.get(name.lower(), name.lower()) for name in gates.os),
        always=gates.always,
    )


def _split(text: str) -> tuple[str, int, str]:
    """Front matter, the line its first line has in the file, and the body."""
    start = len(text) - len(text.lstrip())
    opening_line = text.count("\n", 0, start) + 1
    content = text[start:]
    opened = _HANDLER.FM_BOUNDARY.match(content)
    if opened is None:
        raise SkillError(
            opening_line,
            "no front matter; begin with a line ---, then name: and description:, then ---",
        )
    try:
        source, body = _HANDLER.split(content)
    except ValueError:
        raise SkillError(
            opening_line, "the front matter is not closed; add a line --- after its last field"
        ) from None
    return source, opening_line + content.count("\n", 0, opened.end()), body


def _load_yaml(source: str, first_line: int) -> dict[Any, Any]:
    try:
        _refuse_bombs(source, first_line)
        data = _HANDLER.load(source)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        problem = exc.problem or exc.context or "is not valid"
        raise SkillError(first_line + (mark.line if mark else 0), f"YAML: {problem}") from None
    except yaml.YAMLError as exc:  # an unprintable character: it has a position, not a line
        offset = getattr(exc, "position", 0)
        line = first_line + source.count("\n", 0, offset)
        raise SkillError(line, "YAML: holds a character that YAML does not allow") from None
    except (ValueError, TypeError, OverflowError):  # a date or number out of range
        raise SkillError(
            first_line, "YAML: a date or number is not valid; put it in quotes if it is text"
        ) from None
    if not isinstance(data, dict):
        raise SkillError(first_line, "the front matter must be fields such as name: my-skill")
    return data


def _refuse_bombs(source: str, first_line: int) -> None:
    """Check on the flat event stream what would blow up the loader.

    Its C part recurses on the thread's stack and dies on deep nesting; aliases and merge keys
    multiply.
    """
    depth = 0
    for event in yaml.parse(source, Loader=SafeLoader):
        line = first_line + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, yaml.AliasEvent):
            raise SkillError(line, "YAML: aliases (*name) are not supported; write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_NESTING:
                raise SkillError(line, f"YAML: nested more than {_MAX_NESTING} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _line_of(source: str, path: Sequence[str], first_line: int) -> int:
    """The line of the deepest part of ``path`` that the front matter holds."""
    node = yaml.compose(source, Loader=SafeLoader)
    line = 0
    for part in path:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == part), None)
        elif isinstance(node, yaml.SequenceNode) and part.isdigit():
            found = next(((item, item) for item in node.value[int(part) :]), None)
        else:
            found = None
        if found is None:
            break
        line, node = found[0].start_mark.line, found[1]
    return first_line + line


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


def _one_line(value: Any) -> Any:
    return " ".join(value.split()) if isinstance(value, str) else value


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


# The validator that runs first comes last, so that the constraints stay those of a text.
Name = Annotated[
    str,
    StringConstraints(pattern=r"^[\w][\w .:-]*$", max_length=64),
    BeforeValidator(_one_line),
]
Description = Annotated[
    str, StringConstraints(min_length=1, max_length=1024), BeforeValidator(_one_line)
]
Emoji = Annotated[str, StringConstraints(max_length=32), BeforeValidator(_one_line)]
Word = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=256)]
Words = Annotated[tuple[Word, ...], BeforeValidator(_list)]


class _Lenient(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)


class _Requires(_Lenient):
    env: Words = ()
    bins: Words = ()
    anyBins: Words = ()  # noqa: N815 - OpenClaw's spelling


class _Gates(_Lenient):
    emoji: Emoji | None = None
    requires: Annotated[_Requires, BeforeValidator(_or_empty)] = _Requires()
    os: Words = ()
    always: bool = False


class _Metadata(_Lenient):
    openclaw: _Gates | None = None
    clawdbot: _Gates | None = None  # OpenClaw's earlier name, which its own loader still takes


class _FrontMatter(_Gates):
    name: Name | None = None
    description: Description
    metadata: Annotated[_Metadata, BeforeValidator(_or_empty), BeforeValidator(_from_json)] = (
        _Metadata()
    )

    def gates(self) -> _Gates:
        """Where the gating fields stand: below ``metadata.openclaw``, else at the top."""
        return self.metadata.openclaw or self.metadata.clawdbot or self
