"""Retrieval by words on the labelled messages that ``benchmarks/prompt.py`` reports on."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml

from clasper_worker.prompt.retrieval.context_index import ContextIndex
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot

DATA = Path(__file__).parents[3] / "benchmarks" / "data" / "retrieval.yaml"


@pytest.mark.parametrize(("part", "at_least"), [("messages", 0.7), ("later_messages", 0.85)])
def test_most_wanted_skills_are_among_the_best_five(
    part: str,
    at_least: float,
    snapshot: Callable[[Mapping[str, str | bytes]], WorkspaceSnapshot],
) -> None:
    data = yaml.safe_load(DATA.read_text("utf-8"))
    files = {
        f"skills/{name}/SKILL.md": f"---\n{yaml.safe_dump({'description': skill['description']})}"
        f"---\n{skill['instructions']}"
        for name, skill in data["skills"].items()
    }
    index = ContextIndex.build(snapshot(files))
    assert set(index.skill_names) == set(data["skills"])
    assert len(index.skill_names) >= 40
    assert len(data[part]) >= 60
    found = wanted = 0
    for message, *names in data[part]:
        ranked, _ = index.by_words(message, 5, 0)
        chosen = {index.skill_names[item.position] for item in ranked[:5]}
        found += len(chosen & set(names))
        wanted += len(names)
    assert found / wanted >= at_least
