"""What any JSON value in a request must keep to: finite numbers, a bounded size and depth."""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 32
MAX_VALUES = 50_000
_FIELD_CHARS = 200
_ENOUGH_PROBLEMS = 100

# Where a value stands: the place of what it is in, and its name there. A text of each would repeat
# the names above it, which may be long, for every value below them.
_Path = tuple[Any, Any] | None


def measure(data: Any) -> tuple[int, list[dict[str, str]]]:
    """Walk a decoded JSON value.

    Returns:
        How many characters of text it holds in all, keys included, and the problems found, each
        as ``{field, problem, fix}``. It stops where there are too many values or problems.
    """
    total = 0
    problems: list[dict[str, str]] = []
    left: list[tuple[_Path, Any, int]] = [(None, data, 0)]
    seen = 0
    while left and len(problems) < _ENOUGH_PROBLEMS:
        seen += 1
        path, value, depth = left.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(
                _problem(path, "is not a finite number", "send a number or leave it out")
            )
        elif isinstance(value, dict | list | tuple):
            if seen + len(left) + len(value) > MAX_VALUES:
                problems.append(
                    _problem(path, f"makes for more than {MAX_VALUES:,} values", "send fewer")
                )
                break
            if depth >= MAX_DEPTH:
                problems.append(
                    _problem(path, f"is nested more than {MAX_DEPTH} levels deep", "flatten it")
                )
                continue
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for name, item in pairs:
                total += len(name) if isinstance(name, str) else 0
                left.append(((path, name), item, depth + 1))
    return total, problems


def _problem(path: _Path, problem: str, fix: str) -> dict[str, str]:
    names: list[str] = []
    while path is not None:
        path, name = path
        # A name may itself be anything: keep it short, and printable.
        names.append(str(name)[:_FIELD_CHARS].encode("ascii", "backslashreplace").decode())
    field = ".".join(reversed(names))[:_FIELD_CHARS] or "(request)"
    return {"field": field, "problem": problem, "fix": fix}
