import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
from prometheus_client import REGISTRY

from clasper_worker.devkit.offline_model.embeddings import vector
from clasper_worker.prompt.retrieval.embedding import EmbeddingError, unit_rows
from clasper_worker.prompt.retrieval.selection import SmartLimits
from clasper_worker.prompt.retrieval.smart_context import QUERY_REST_SECONDS, SmartContext
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from tests.waiting import eventually

Snapshot = Callable[[Mapping[str, str | bytes]], WorkspaceSnapshot]


def skill_md(name: str, description: str, body: str, extra: str = "") -> str:
    return f"---\nname: {name}\ndescription: {description}\n{extra}---\n{body}\n"


FILES = {
    "skills/refunds/SKILL.md": skill_md("refunds", "Money back for customers.", "Refund it. " * 20),
    "skills/travel/SKILL.md": skill_md("travel", "Book flights and hotels.", "Book it. " * 20),
    "skills/invoices/SKILL.md": skill_md("invoices", "Check supplier invoices.", "Check. " * 20),
    "skills/house/SKILL.md": skill_md("house", "House rules on flights.", "x", "always: true\n"),
    "skills/off/SKILL.md": skill_md("off", "Flights too.", "x", "requires: {env: NO}\n"),
    "MEMORY.md": "# Ada\nprefers the train\n# Bob\nis allergic to nuts",
    "memory/2020-01-01.md": "Ada flew to Madrid with Iberia",
}


class MeaningEmbedder:
    """Speaks the embedder's interface. Its vectors are the offline model's."""

    name = "local:test"

    def __init__(self) -> None:
        self.failing: EmbeddingError | None = None
        self.calls = 0
        self.release = threading.Event()
        self.release.set()

    def documents(self, texts: Sequence[str]) -> Any:
        self.calls += 1
        self.release.wait(30)
        if self.failing is not None:
            raise self.failing
        return unit_rows([vector(text) for text in texts])

    async def query(self, text: str) -> Any:
        if self.failing is not None:
            raise self.failing
        return unit_rows([vector(text)])[0]


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"clasper_smart_context_{name}_total", labels) or 0.0


@pytest.fixture
def prepared(snapshot: Snapshot) -> Callable[[SmartContext], WorkspaceSnapshot]:
    def _prepared(smart: SmartContext) -> WorkspaceSnapshot:
        found = snapshot(FILES)
        smart.prepare(found)
        return found

    return _prepared


async def test_the_skills_and_memory_that_fit_are_chosen_best_first(prepared: Any) -> None:
    smart = SmartContext()
    before = counted("rankings", ranker="bm25")
    chosen = await smart.select(
        prepared(smart), "Which hotel, when Ada was in Madrid with Iberia?", SmartLimits()
    )
    assert chosen.ranker == "bm25"
    assert chosen.problem is None
    assert chosen.skills == ("travel",)
    assert chosen.memory[0].name == "memory/2020-01-01.md:1"
    assert counted("rankings", ranker="bm25") == before + 1


async def test_neither_skills_that_are_off_nor_those_that_apply_always_are_candidates(
    prepared: Any,
) -> None:
    smart = SmartContext()
    chosen = await smart.select(prepared(smart), "flights house off", SmartLimits())
    names = {item.name for item in chosen.candidates if item.kind == "skill"}
    assert names == {"travel"}


async def test_a_message_that_fits_nothing_is_told_nothing(prepared: Any) -> None:
    smart = SmartContext()
    chosen = await smart.select(prepared(smart), "zzz", SmartLimits())
    assert (chosen.ranker, chosen.skills, chosen.memory) == ("bm25", (), ())


@pytest.mark.parametrize(
    ("limits", "skills", "pieces"),
    [
        (SmartLimits(max_skills=1, max_memory=1), 1, 1),
        (SmartLimits(max_skills=0, max_memory=0), 0, 0),
        (SmartLimits(max_tokens=1), 0, 0),
        (SmartLimits(max_tokens=70), 1, 2),
    ],
)
async def test_counts_and_token_budget_hold_and_what_is_left_out_says_why(
    limits: SmartLimits, skills: int, pieces: int, prepared: Any
) -> None:
    smart = SmartContext()
    query = "flights, hotels, invoices, suppliers, money back for Ada, nuts for Bob, Madrid"
    chosen = await smart.select(prepared(smart), query, limits)
    assert (len(chosen.skills), len(chosen.memory)) == (skills, pieces)
    told = [item for item in chosen.candidates if item.left_out is None]
    assert len(told) == skills + pieces
    if limits.max_tokens:
        assert sum(item.tokens for item in told) <= limits.max_tokens


async def test_by_meaning_once_the_workspace_is_embedded_and_by_words_until_then(
    prepared: Any,
) -> None:
    embedder = MeaningEmbedder()
    embedder.release.clear()
    smart = SmartContext(embedder)
    found = prepared(smart)
    first = await smart.select(found, "book a flight", SmartLimits())
    assert (first.ranker, first.problem) == ("bm25", "the workspace is being embedded")
    embedder.release.set()
    index = found.derived["context index"]
    await eventually(lambda: index.vectors is not None)
    second = await smart.select(found, "book a flight", SmartLimits())
    assert (second.ranker, second.problem) == ("local:test", None)
    assert second.skills[0] == "travel"


async def test_a_lasting_failure_to_embed_is_told_and_not_tried_again(prepared: Any) -> None:
    embedder = MeaningEmbedder()
    embedder.failing = EmbeddingError("no such model", lasting=True)
    smart = SmartContext(embedder, retry_seconds=(0.0,))
    found = prepared(smart)
    index = found.derived["context index"]
    await eventually(lambda: index.embedding_problem)
    chosen = await smart.select(found, "book a flight", SmartLimits())
    assert (chosen.ranker, chosen.problem) == ("bm25", "no such model")
    assert chosen.skills == ("travel",)
    assert embedder.calls == 1


async def test_a_passing_failure_to_embed_is_tried_again_until_it_works(prepared: Any) -> None:
    embedder = MeaningEmbedder()
    embedder.failing = EmbeddingError("rate limit")
    smart = SmartContext(embedder, retry_seconds=(0.0, 0.0))
    before = counted("failures", step="embed")
    index = prepared(smart).derived["context index"]
    await eventually(lambda: embedder.calls > 3)
    embedder.failing = None
    await eventually(lambda: index.vectors is not None)
    assert counted("failures", step="embed") >= before + 3


async def test_a_message_that_cannot_be_embedded_is_ranked_by_words(prepared: Any) -> None:
    embedder = MeaningEmbedder()
    smart = SmartContext(embedder)
    found = prepared(smart)
    index = found.derived["context index"]
    await eventually(lambda: index.vectors is not None)
    embedder.failing = EmbeddingError("too slow")
    before = counted("failures", step="query")
    chosen = await smart.select(found, "book a flight", SmartLimits())
    assert (chosen.ranker, chosen.problem) == ("bm25", "too slow")
    assert counted("failures", step="query") == before + 1


async def test_after_a_message_could_not_be_embedded_words_rank_for_a_while_without_asking(
    prepared: Any,
) -> None:
    now = 0.0
    embedder = MeaningEmbedder()
    smart = SmartContext(embedder, clock=lambda: now)
    found = prepared(smart)
    index = found.derived["context index"]
    await eventually(lambda: index.vectors is not None)
    embedder.failing = EmbeddingError("no answer")
    await smart.select(found, "book a flight", SmartLimits())
    embedder.failing = None
    before = counted("failures", step="query")
    resting = await smart.select(found, "book a flight", SmartLimits())
    assert (resting.ranker, resting.problem) == ("bm25", "no answer")
    assert counted("failures", step="query") == before
    now = QUERY_REST_SECONDS
    after = await smart.select(found, "book a flight", SmartLimits())
    assert (after.ranker, after.problem) == ("local:test", None)


async def test_what_was_not_indexed_is_told_in_full(snapshot: Snapshot) -> None:
    before = counted("rankings", ranker="full")
    chosen = await SmartContext().select(snapshot(FILES), "book a flight", SmartLimits())
    assert chosen.ranker is None
    assert chosen.problem == "the workspace could not be indexed"
    assert counted("rankings", ranker="full") == before + 1


async def test_a_defect_in_ranking_means_the_full_context_and_is_counted(prepared: Any) -> None:
    smart = SmartContext()
    found = prepared(smart)
    found.derived["context index"].skills = None
    before = counted("failures", step="rank")
    chosen = await smart.select(found, "book a flight", SmartLimits())
    assert chosen.ranker is None
    assert counted("failures", step="rank") == before + 1


def test_a_defect_in_indexing_is_counted_and_does_not_stop_the_workspace(
    snapshot: Snapshot,
) -> None:
    found = snapshot(FILES)
    object.__setattr__(found, "skills", None)
    before = counted("failures", step="index")
    SmartContext().prepare(found)
    assert counted("failures", step="index") == before + 1


async def test_an_empty_workspace_has_nothing_to_choose(snapshot: Snapshot) -> None:
    smart = SmartContext(MeaningEmbedder())
    found = snapshot({})
    smart.prepare(found)
    chosen = await smart.select(found, "anything", SmartLimits())
    assert (chosen.ranker, chosen.skills, chosen.memory) == ("bm25", (), ())
