"""The front matter of a SKILL.md: YAML, read as people write it.

A slip in one field must not cost the others: where the whole is no YAML, each top-level field is
read by itself, and one that still is none becomes plain text, as in OpenClaw, which reads
``description: Use when: asked`` as a line of text. What was read so is doubted, with its line.
Fields that decide whether a skill is on are never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import yaml
from frontmatter.default_handlers import SafeLoader, YAMLHandler

from clasper_worker.text.whole_text import whole, whole_json

_MAX_NESTING = 32
_HANDLER = YAMLHandler()
_NEVER_GUESSED = frozenset({"metadata", "requires", "os", "always"})
_FIELD = re.compile(r"([A-Za-z_][\w-]{0,63}):(?:[ \t]|$)")
_IN_QUOTES = re.compile(r"([\"'])(.*)\1", re.DOTALL)


class SkillError(Exception):
    """A SKILL.md that cannot be used.

    Attributes:
        line: where in the file, from 1.
        problem: what is wrong and how to fix it.
    """

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(f"line {line}: {problem}")


class _NotYamlError(SkillError):
    """A slip in the notation, which leaves the other fields readable."""


@dataclass(frozen=True, slots=True)
class Doubt:
    """Something that was read, though not as its author may have meant it.

    Attributes:
        line: where in the file, from 1.
        problem: what was read how, and how to fix it.
    """

    line: int
    problem: str


@dataclass(frozen=True, slots=True)
class FrontMatter:
    """What a file says of itself, and what it says below that.

    Attributes:
        fields: by name.
        body: the text below; all of it where there is no front matter.
        source: the front matter's own text.
        first_line: where that begins, from 1.
        doubts: what was read in spite of a slip.
        is_there: whether the file has any.
    """

    fields: dict[Any, Any]
    body: str
    source: str = ""
    first_line: int = 1
    doubts: tuple[Doubt, ...] = ()
    is_there: bool = True

    def line_of(self, path: Sequence[str]) -> int:
        """The line of the deepest part of ``path`` that the front matter holds."""
        try:
            node = yaml.compose(self.source, Loader=SafeLoader)
        except yaml.YAMLError:
            return self.first_line + _line_of_field(self.source, path[0] if path else "")
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
        return self.first_line + line


def read_front_matter(text: str) -> FrontMatter:
    """Take a file's front matter from its text.

    Raises:
        SkillError: it cannot be read, not even field by field.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    start = len(text) - len(text.lstrip())
    opening_line = text.count("\n", 0, start) + 1
    content = text[start:]
    opened = _HANDLER.FM_BOUNDARY.match(content)
    if opened is None:
        return FrontMatter({}, whole(content), first_line=opening_line, is_there=False)
    first_line = opening_line + content.count("\n", 0, opened.end())
    doubts: list[Doubt] = []
    try:
        source, body = _HANDLER.split(content)
    except ValueError:
        source, body = _unclosed(content[opened.end() :], opening_line)
        problem = "the front matter is not closed and was taken to end here; add a line ---"
        doubts.append(Doubt(first_line + source.count("\n"), problem))
    try:
        data = _load(source, first_line)
    except _NotYamlError as slip:
        data = _by_fields(source, first_line, slip, doubts)
    else:
        doubts += _doubled(source, first_line)
    if not isinstance(data, dict):
        problem = "the front matter has no fields such as description: and was left out"
        doubts.append(Doubt(opening_line, problem))
        data = {}
    return FrontMatter(whole_json(data), whole(body), source, first_line, tuple(doubts))


def _unclosed(rest: str, opening_line: int) -> tuple[str, str]:
    """Fields up to a blank line or a heading; the rest is the body.

    Raises:
        SkillError: there is no such end: it may be a file that is being written.
    """
    lines = rest.lstrip("\n").splitlines(keepends=True)
    end = 0
    for line in lines:
        if not (_FIELD.match(line) or (line[:1] in {" ", "\t"} and line.strip())):
            break
        end += 1
    body = "".join(lines[end:])
    if not end or not body.strip() or not (lines[end].isspace() or lines[end].startswith("#")):
        raise SkillError(
            opening_line, "the front matter is not closed; add a line --- after its last field"
        )
    return "".join(lines[:end]), body


def _by_fields(
    source: str, first_line: int, slip: SkillError, doubts: list[Doubt]
) -> dict[Any, Any]:
    """Each top-level field by itself; what is no YAML is text."""
    data: dict[Any, Any] = {}
    told = len(doubts)
    for start, name, block in _fields(source):
        line = first_line + start
        try:
            loaded = _load(block, line)
        except _NotYamlError as exc:
            if name in _NEVER_GUESSED:
                raise
            data[name] = _as_text(block.partition(":")[2])
            doubts.append(
                Doubt(exc.line, f"{name}: {exc.problem}; it was read as text: put it in quotes")
            )
        else:
            if name in data:
                doubts.append(Doubt(line, f"{name}: stands here twice; the last one counts"))
            data |= loaded if isinstance(loaded, dict) else {}
    if not data:
        raise slip
    if len(doubts) == told:
        doubts.append(Doubt(slip.line, f"{slip.problem}; each field was read by itself"))
    return data


def _fields(source: str) -> list[tuple[int, str, str]]:
    """The top-level fields: each one's line from 0, its name, and its text."""
    found: list[tuple[int, str, list[str]]] = []
    for number, line in enumerate(source.splitlines(keepends=True)):
        # A field that was indented by mistake is one all the same, if it is one of the two.
        bare = line.lstrip(" \t")
        named = _FIELD.match(line) or (
            _FIELD.match(bare) if bare.startswith(("name:", "description:")) else None
        )
        if named is not None and (line is bare or not _within(found)):
            found.append((number, named[1], [bare]))
        elif found:
            found[-1][2].append(line)
    return [(number, name, "".join(lines)) for number, name, lines in found]


def _within(found: Sequence[tuple[int, str, list[str]]]) -> bool:
    """Whether the field before has its value on further lines, so that indented ones are of it."""
    return bool(found) and not found[-1][2][0].partition(":")[2].strip(" \t\n|>+-")


def _line_of_field(source: str, name: str) -> int:
    return next((line for line, found, _ in _fields(source) if found == name), 0)


def _as_text(value: str) -> str:
    text = " ".join(value.split())
    quoted = _IN_QUOTES.fullmatch(text)
    return quoted[2] if quoted else text


def _doubled(source: str, first_line: int) -> list[Doubt]:
    node = yaml.compose(source, Loader=SafeLoader)
    names: set[str] = set()
    doubts = []
    for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
        name = str(key.value)
        if name in names:
            problem = f"{name[:64]}: stands here twice; the last one counts"
            doubts.append(Doubt(first_line + key.start_mark.line, problem))
        names.add(name)
    return doubts


def _load(source: str, first_line: int) -> Any:
    try:
        _refuse_bombs(source, first_line)
        return _HANDLER.load(source)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        problem = exc.problem or exc.context or "is not valid"
        kind = SkillError if isinstance(exc, yaml.constructor.ConstructorError) else _NotYamlError
        raise kind(first_line + (mark.line if mark else 0), f"YAML: {problem}") from None
    except yaml.YAMLError as exc:  # an unprintable character: it has a position, not a line
        offset = getattr(exc, "position", 0)
        line = first_line + source.count("\n", 0, offset)
        raise _NotYamlError(line, "YAML: holds a character that YAML does not allow") from None
    except (ValueError, TypeError, OverflowError):  # a date or number out of range
        raise _NotYamlError(
            first_line, "YAML: a date or number is not valid; put it in quotes if it is text"
        ) from None


def _refuse_bombs(source: str, first_line: int) -> None:
    """Check on the flat event stream what would blow up the loader.

    Its C part recurses on the thread's stack and dies on deep nesting; aliases and merge keys
    multiply. An alias of nothing is text that begins with an asterisk.
    """
    depth = 0
    anchors = False
    for event in yaml.parse(source, Loader=SafeLoader):
        line = first_line + (event.start_mark.line if event.start_mark else 0)
        if isinstance(event, yaml.AliasEvent):
            kind = SkillError if anchors else _NotYamlError
            raise kind(line, "YAML: aliases (*name) are not supported; write the value out")
        anchors = anchors or getattr(event, "anchor", None) is not None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_NESTING:
                raise SkillError(line, f"YAML: nested more than {_MAX_NESTING} levels deep")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
