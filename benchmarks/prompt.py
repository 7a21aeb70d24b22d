"""What prompts cost and how well skills are found: ``python benchmarks/prompt.py [--json PATH]``.

Times: building a prompt with 5 skills; choosing and building with 500 skills and 1 MB of memory;
indexing those (by the clock, and the CPU's alone, which a busy machine changes less). Retrieval:
recall@5 over the two sets of labelled messages in ``data/retrieval.yaml``, for each ranker that is
there. ``openai-stub`` is the offline model's embeddings (hashed parts of words, no model of
meaning): it exercises the path and says nothing of OpenAI's models.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from clasper_worker.config.groups import DEFAULT_EMBEDDING_MODEL
from clasper_worker.devkit.offline_model.embeddings import vector
from clasper_worker.prompt.builder import build_prompt
from clasper_worker.prompt.models import PromptInputs
from clasper_worker.prompt.retrieval.context_index import ContextIndex
from clasper_worker.prompt.retrieval.embedders import LocalEmbedder
from clasper_worker.prompt.retrieval.embedding import Embedder, EmbeddingError, unit_rows
from clasper_worker.prompt.retrieval.selection import SmartLimits
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import this_host
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.prompt.workspace.templates import template_files

DATA = Path(__file__).parent / "data" / "retrieval.yaml"
NOW = datetime(2026, 3, 29, 12, 0, tzinfo=UTC)
TOOLS = ("list_tasks", "create_task", "post_message", "create_document", "get_notifications")
MESSAGE_CHARS = 300
REPEATS = 300


class StubEmbedder:
    """The offline model's embeddings, without HTTP."""

    name = "openai-stub"

    def documents(self, texts: Sequence[str]) -> Any:
        return unit_rows([vector(text) for text in texts])

    async def query(self, text: str) -> Any:
        return self.documents([text])[0]


def read(files: Mapping[str, str]) -> WorkspaceSnapshot:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            path = Path(folder, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        reader = WorkspaceReader(Path(folder), this_host())
        return reader.read(reader.look())


def skill_text(name: str, description: str, body: str) -> str:
    fields = yaml.safe_dump({"name": name, "description": description}, allow_unicode=True)
    return f"---\n{fields}---\n{body}\n"


def labelled(part: str) -> tuple[WorkspaceSnapshot, list[tuple[str, set[str]]]]:
    data = yaml.safe_load(DATA.read_text("utf-8"))
    files = {
        f"skills/{name}/SKILL.md": skill_text(name, skill["description"], skill["instructions"])
        for name, skill in data["skills"].items()
    }
    return read(files), [(message, set(names)) for message, *names in data[part]]


def words() -> Callable[[int], str]:
    """Text of made-up words that occur as often as words do (Zipf), the same in each run."""
    chance = random.Random(7)
    letters = "etaoinshrdlucmfwypvbgkjqxz"
    weights = [1 / (place + 2) for place in range(len(letters))]
    known = [
        "".join(chance.choices(letters, weights, k=chance.randint(3, 11))) for _ in range(9000)
    ]
    often = [1 / (place + 1) for place in range(len(known))]

    def text(chars: int) -> str:
        found = " ".join(chance.choices(known, often, k=chars // 4))
        return found[:chars]

    return text


def large() -> tuple[WorkspaceSnapshot, str]:
    """500 skills of 1,000 characters and 1 MB of memory, and a message."""
    text = words()
    files = dict(template_files("single"))
    for number in range(500):
        name = f"skill-{number}"
        files[f"skills/{name}/SKILL.md"] = skill_text(name, text(120), text(1_000))
    paragraphs = "\n\n".join
    for day in range(1, 53):
        notes = f"memory/2025-{1 + day // 28:02}-{1 + day % 28:02}.md"
        files[notes] = paragraphs(text(600) for _ in range(32))
    files["MEMORY.md"] = paragraphs(text(600) for _ in range(32))
    return read(files), text(MESSAGE_CHARS)


def spread(times: Iterable[float]) -> dict[str, float]:
    ordered = sorted(times)
    return {
        "p50": round(statistics.median(ordered) * 1000, 3),
        "p99": round(ordered[int(len(ordered) * 0.99)] * 1000, 3),
    }


def inputs(**fields: Any) -> PromptInputs:
    return PromptInputs(
        role="writer", now=NOW, timezone="Europe/Berlin", tool_names=TOOLS, **fields
    )


def time_five() -> dict[str, float]:
    files = dict(template_files("multi-agent"))
    text = words()
    for number in range(3):  # the template has two
        files[f"skills/s{number}/SKILL.md"] = skill_text(f"s{number}", text(100), text(1_500))
    snapshot = read(files)

    def once() -> float:
        started = time.perf_counter()
        build_prompt(snapshot, inputs(task_title="Spring newsletter"))
        return time.perf_counter() - started

    once()
    return spread(once() for _ in range(REPEATS))


async def time_large() -> dict[str, Any]:
    snapshot, message = large()
    sizes = {
        "skills": len(snapshot.skills),
        "memory_bytes": sum(
            len(file.text.encode())
            for name, file in snapshot.files.items()
            if name.lower().startswith("memory")
        ),
    }
    ContextIndex.build(read({"MEMORY.md": "once, so that the library is loaded"}))
    started, started_cpu = time.perf_counter(), time.thread_time()
    smart = SmartContext()
    smart.prepare(snapshot)
    indexed, indexed_cpu = time.perf_counter() - started, time.thread_time() - started_cpu
    pieces = len(ContextIndex.build(snapshot).memory)

    async def once() -> tuple[float, float]:
        began, began_cpu = time.perf_counter(), time.thread_time()
        selection = await smart.select(snapshot, message, SmartLimits())
        build_prompt(snapshot, inputs(task_title="Newsletter", selection=selection))
        return time.perf_counter() - began, time.thread_time() - began_cpu

    await once()
    times = [await once() for _ in range(REPEATS)]
    return {
        **sizes,
        "pieces": pieces,
        "index_seconds": round(indexed, 2),
        "index_cpu_seconds": round(indexed_cpu, 2),
        "turn_ms": spread(time for time, _ in times),
        "turn_cpu_ms": spread(cpu for _, cpu in times),
    }


async def retrieval(embedder: Embedder | None) -> dict[str, Any]:
    return {part: await found_in(part, embedder) for part in ("messages", "later_messages")}


async def found_in(part: str, embedder: Embedder | None) -> dict[str, Any]:
    snapshot, messages = labelled(part)
    index = ContextIndex.build(snapshot)
    if embedder is not None:
        index.vectors = embedder.documents(index.texts_to_embed())
    found = wanted = first = told = 0
    for message, names in messages:
        if embedder is None:
            ranked, _ = index.by_words(message, 5, 0)
        else:
            ranked, _ = index.by_meaning(await embedder.query(message), 5, 0)
        chosen = [index.skill_names[item.position] for item in ranked[:5]]
        found += len(names & set(chosen))
        wanted += len(names)
        first += bool(chosen) and chosen[0] in names
        told += len(chosen)
    return {
        "recall_at_5": round(found / wanted, 3),
        "first_is_right": round(first / len(messages), 3),
        "skills_told": round(told / len(messages), 2),
        "messages": len(messages),
        "skills": len(index.skills),
    }


async def measure() -> dict[str, Any]:
    figures: dict[str, Any] = {
        "python": platform.python_version(),
        "build_5_skills_ms": time_five(),
        "smart_500_skills": await time_large(),
        "retrieval": {
            "none": await retrieval(None),
            "openai-stub": await retrieval(StubEmbedder()),
        },
    }
    try:
        figures["retrieval"]["local"] = await retrieval(LocalEmbedder(DEFAULT_EMBEDDING_MODEL))
    except EmbeddingError as exc:
        figures["retrieval"]["local"] = {"not measured": exc.problem}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the figures there")
    arguments = parser.parse_args()
    figures = asyncio.run(measure())
    text = json.dumps(figures, indent=2)
    print(text)
    if arguments.json:
        arguments.json.write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
