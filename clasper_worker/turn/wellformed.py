"""What any JSON value in a request must keep to: finite numbers, a bounded size and depth."""

from __future__ import annotations

import math
from typing import Any

MAX_DEPTH = 32


def measure(data: Any) -> tuple[int, list[dict[str, str]]]:
    """Walk a decoded JSON value.

    Returns:
        How many characters of text it holds in all, keys included, and the problems found, each
        as ``{field, problem, fix}``.
    """
    total = 0
    problems: list[dict[str, str]] = []
    left: list[tuple[str, Any, int]] = [("", data, 0)]
    while left:
        path, value, depth = left.pop()
        if isinstance(value, str):
            total += len(value)
        elif isinstance(value, float) and not math.isfinite(value):
            problems.append(
                _problem(path, "is not a finite number", "send a number or leave it out")
            )
        elif isinstance(value, dict | list | tuple):
            if depth >= MAX_DEPTH:
                problems.append(
                    _problem(path, f"is nested more than {MAX_DEPTH} levels deep", "flatten it")
                )
                continue
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for name, item in pairs:
                total += len(name) if isinstance(name, str) else 0
                left.append((f"{path}.{name}" if path else str(name), item, depth + 1))
    return total, problems


def _problem(path: str, problem: str, fix: str) -> dict[str, str]:
    # A path may itself be anything: keep it short, and printable.
    field = path.encode("ascii", "backslashreplace").decode()[:200] or "(request)"
    return {"field": field, "problem": problem, "fix": fix}
