"""docs/metrics.md lists every figure of the code, with its type and labels, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[3]
_KINDS = {
    "Counter": "counter",
    "_LateCounter": "counter",
    "Histogram": "histogram",
    "Gauge": "gauge",
    "GaugeMetricFamily": "gauge",
    "_gauge": "gauge",
}


def made() -> Iterator[tuple[str, str, frozenset[str]]]:
    """Name, type and labels of each figure, read from the package's source."""
    for path in (REPO / "clasper_worker").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
                continue
            kind = _KINDS.get(node.func.id)
            if kind is None or not node.args or not isinstance(node.args[0], ast.Constant):
                continue
            given = [
                *node.args[2:],
                *(word.value for word in node.keywords if word.arg == "labels"),
            ]
            texts = [text for part in given for text in ast.walk(part)]
            labels = {
                text.value
                for text in texts
                if isinstance(text, ast.Constant) and isinstance(text.value, str)
            }
            name = node.args[0].value
            assert isinstance(name, str)
            yield name, kind, frozenset(labels)


def told() -> Iterator[tuple[str, str, frozenset[str]]]:
    """The same as the page has it."""
    text = (REPO / "docs" / "metrics.md").read_text("utf-8")
    row = r"^\| `(clasper_\w+)` \| (\w+) \| ([^|]*)\|"
    for name, kind, labels in re.findall(row, text, re.MULTILINE):
        yield name, kind, frozenset(re.findall(r"`(\w+)`", labels))


def test_every_figure_is_documented_with_its_type_and_labels() -> None:
    figures = set(made())
    assert len(figures) > 25
    assert set(told()) == figures
