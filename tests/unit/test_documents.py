"""What the documents name in the source tree is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from clasper_worker.cli import COMMANDS

REPO = Path(__file__).parents[2]
_PAST = "CHANGELOG.md"
DOCUMENTS = [
    path for path in sorted([*REPO.glob("docs/*.md"), *REPO.glob("*.md")]) if path.name != _PAST
]
PATH = re.compile(r"`([\w./-]+\.(?:py|lua))`")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_source_file_that_a_document_names_exists(document: Path) -> None:
    named = set(PATH.findall(document.read_text()))
    missing = {p for p in named if not any((root / p).is_file() for root in _ROOTS)}
    assert missing == set()


_ROOTS = (REPO, REPO / "clasper_worker")


def test_every_promise_of_the_table_is_kept_by_a_function_in_the_file_beside_it() -> None:
    text = (REPO / "docs" / "architecture.md").read_text()
    table = text.partition("## Where each promise is kept")[2].partition("\n## ")[0]
    rows = [line.split("|")[2:4] for line in table.splitlines() if "`" in line and "/" in line][1:]
    assert len(rows) >= 15
    for files, names in rows:
        sources = [(REPO / "clasper_worker" / path).read_text() for path in PATH.findall(files)]
        for name in re.findall(r"`(\w+)`", names):
            defined = re.compile(rf"(?:def|class|function) {name}\b")
            assert any(defined.search(source) for source in sources), f"{name} in {files}"


def test_the_readme_lists_every_command() -> None:
    text = (REPO / "README.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("| `c")]
    named = set(re.findall(r"`(?:clasper )?([\w-]+)", " ".join(lines)))
    assert set(COMMANDS) - named == set()
