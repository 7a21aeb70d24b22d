"""Every regular expression of the package takes time by the length of the text, whatever it says.

The patterns are collected, not listed: those that modules keep, and those that stand in calls of
`re`. Each meets texts made from its own characters: runs of one, of two in turn, of one after
another, ended by what does not fit.
"""

import ast
import functools
import importlib
import itertools
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import clasper_worker
from tests.growth import is_linear

ROOT = Path(clasper_worker.__file__).parent
COMMON = " \n<-#`1a"
MOST_CHARACTERS = 12
LARGEST = 512  # a step of `re` takes a nanosecond or more: eight million of them show
_CATEGORIES = {"DIGIT": "1", "SPACE": " ", "WORD": "a", "NOT_DIGIT": "a", "NOT_SPACE": "a",
               "NOT_WORD": " "}  # fmt: skip
FUNCTIONS = {"compile", "search", "match", "fullmatch", "sub", "subn", "split", "findall",
             "finditer"}  # fmt: skip


def kept_patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    for module in pkgutil.walk_packages(clasper_worker.__path__, "clasper_worker."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        owners: list[Any] = [loaded, *(v for v in vars(loaded).values() if isinstance(v, type))]
        for owner in owners:
            for name, value in list(vars(owner).items()):
                values = value if isinstance(value, list | tuple) else [value]
                for item in values:
                    if isinstance(item, re.Pattern) and isinstance(item.pattern, str):
                        yield f"{module.name}.{name}", item


def written_patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    """Constant patterns in calls of `re`, and in the ``pattern=`` of a field."""
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            place = f"{path.relative_to(ROOT)}:{node.lineno}"
            function = node.func
            texts = [word.value for word in node.keywords if word.arg == "pattern"]
            if (
                isinstance(function, ast.Attribute)
                and isinstance(function.value, ast.Name)
                and function.value.id == "re"
                and function.attr in FUNCTIONS
            ):
                texts += node.args[:1]
            for text in texts:
                if isinstance(text, ast.Constant) and isinstance(text.value, str):
                    yield place, re.compile(text.value)


@functools.cache
def collected() -> list[Any]:
    found = {
        (pattern.pattern, pattern.flags): (place, pattern)
        for place, pattern in (*written_patterns(), *kept_patterns())
    }
    return [pytest.param(pattern, id=place) for place, pattern in found.values()]


def characters_of(pattern: re.Pattern[str]) -> str:
    """What the pattern speaks of: its literals, an end of each range, one of each category."""
    found: dict[str, None] = {}

    def visit(item: Any) -> None:
        if isinstance(item, tuple) and len(item) == 2:
            kind, value = str(item[0]), item[1]
            if kind in {"LITERAL", "NOT_LITERAL"}:
                found[chr(value)] = None
            elif kind == "RANGE":
                found[chr(value[0])] = None
            elif kind == "CATEGORY":
                found[_CATEGORIES.get(str(value).removeprefix("CATEGORY_"), "a")] = None
            else:
                visit(value)
        elif not isinstance(item, str | int) and hasattr(item, "__iter__"):
            for part in item:
                visit(part)
        elif hasattr(item, "data"):  # the library's own list, which has no iterator
            visit(item.data)

    visit(re._parser.parse(pattern.pattern, pattern.flags))  # type: ignore[attr-defined]
    own = list(found)[:MOST_CHARACTERS]
    return "".join(dict.fromkeys((*own, *COMMON)))


def shapes(pattern: re.Pattern[str]) -> Iterator[tuple[str, ...]]:
    """Head, what is repeated, middle, what is repeated, end."""
    chars = characters_of(pattern)
    for count, char in itertools.product(range(1, 6), chars):
        yield f"{chars[:count]}a", char, "", "", "\0"
    for char in chars:
        yield "", char, "", "", "\0"
    for first, second in itertools.permutations(chars, 2):
        yield first, second, "", "", "\0"
        yield "", first + second, "", "", "\0"
    for first, second in itertools.permutations(chars[:MOST_CHARACTERS], 2):
        yield "", first, "", second, "\0"


@pytest.mark.parametrize("pattern", collected())
def test_a_pattern_takes_time_by_the_length_of_the_text(pattern: re.Pattern[str]) -> None:
    for head, one, middle, other, end in shapes(pattern):
        for run in (pattern.search, pattern.fullmatch):

            def make(size: int, parts: tuple[str, ...] = (head, one, middle, other, end)) -> str:
                first, repeated, between, again, last = parts
                return first + repeated * size + between + again * size + last

            assert is_linear(run, make, LARGEST), (run.__name__, head, one, other)


def test_patterns_are_found_in_both_ways() -> None:
    places = [str(param.id) for param in collected()]
    assert len(places) > 20
    assert any(place.startswith("clasper_worker.prompt.sanitize") for place in places)


@pytest.mark.parametrize("quadratic", [r"\s+$", r"#\s+(.*?)\s*#*\s*$", r"(a|a)*b", r"^-+\s*-+$"])
def test_the_measurement_tells_a_pattern_that_is_not(quadratic: str) -> None:
    pattern = re.compile(quadratic)

    def linear(head: str, one: str, middle: str, other: str, end: str) -> bool:
        return is_linear(
            pattern.search, lambda n: head + one * n + middle + other * n + end, LARGEST
        )

    assert not all(linear(*shape) for shape in shapes(pattern))


def test_no_model_asks_pydantic_for_the_engine_that_backtracks() -> None:
    for path in ROOT.rglob("*.py"):
        assert "python-re" not in path.read_text(), path
