"""Smart context: tell the agent the skills and the memory that fit its message, not all of them.

`SmartContext.prepare` indexes a snapshot, in the watcher's thread before the snapshot is used.
`SmartContext.select` ranks on a turn's path: in memory by words, or with one embedding of the
message. The ranker falls back: embeddings that are not ready or fail → words; no index → the full
context. Each fall is counted, logged, and told with the selection.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from clasper_worker.observability.metrics import count_failure, count_ranking
from clasper_worker.prompt.retrieval.context_index import ContextIndex
from clasper_worker.prompt.retrieval.embedding import (
    CachedDocuments,
    Embedder,
    EmbeddingError,
    VectorStore,
)
from clasper_worker.prompt.retrieval.selection import Ranked, Selection, SmartLimits, choose
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot

BY_WORDS = "bm25"

RETRY_SECONDS = (5.0, 30.0, 120.0, 600.0)
"""After a passing failure documents are embedded again: each wait once, the last for good."""

QUERY_REST_SECONDS = 15.0
"""After a message could not be embedded, words rank for this long, so that only one turn in a while
waits for a provider that does not answer."""

_INDEX = "context index"

log = structlog.get_logger(__name__)


class SmartContext:
    """Chooses what to tell, for all workspaces of one worker.

    Args:
        embedder: ranks by meaning; None: by words alone.
        store: where document vectors outlive the process.
        retry_seconds: waits between attempts to embed the documents.
        clock: seconds, for the rest after a message could not be embedded.
    """

    def __init__(
        self,
        embedder: Embedder | None = None,
        store: VectorStore | None = None,
        *,
        retry_seconds: Sequence[float] = RETRY_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embedder = embedder
        self._store = store
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._rest: tuple[float, str] | None = None  # until when, and why
        self._caches: dict[Path, CachedDocuments] = {}
        self._newest: dict[Path, ContextIndex] = {}
        self._one_at_a_time = threading.Lock()
        self._closed = threading.Event()

    @property
    def ranker(self) -> str:
        """What ranks as long as nothing fails."""
        return BY_WORDS if self._embedder is None else self._embedder.name

    def prepare(self, snapshot: WorkspaceSnapshot) -> None:
        """Index a snapshot by words, and start to embed it in the background. Never raises."""
        try:
            index = ContextIndex.build(snapshot)
        except Exception:
            count_failure("index")
            log.exception("smart_context.index_failed", workspace=str(snapshot.root))
            return
        snapshot.derived[_INDEX] = index
        self._newest[snapshot.root] = index
        if self._embedder is not None and (index.skills or index.memory):
            threading.Thread(
                target=self._embed,
                args=(self._embedder, snapshot.root, index),
                name="clasper-embeddings",
                daemon=True,
            ).start()

    async def select(
        self, snapshot: WorkspaceSnapshot, query: str, limits: SmartLimits
    ) -> Selection:
        """Choose for one message. Never raises: where nothing works, the full context is told.

        Args:
            snapshot: the workspace; one that `prepare` was given.
            query: what to rank by: the message.
            limits: how much may be chosen.
        """
        index: ContextIndex | None = snapshot.derived.get(_INDEX)
        if index is None:
            selection = Selection(None, problem="the workspace could not be indexed")
        else:
            try:
                selection = await self._select(index, query, limits)
            except Exception:
                count_failure("rank")
                log.exception("smart_context.rank_failed")
                selection = Selection(None, problem="ranking failed; see the worker's log")
        count_ranking(selection.ranker)
        return selection

    async def settled(self, snapshot: WorkspaceSnapshot, seconds: float) -> None:
        """Wait until the workspace is embedded or that has failed once; for the inspector."""
        index: ContextIndex | None = snapshot.derived.get(_INDEX)
        if self._embedder is None or index is None or not (index.skills or index.memory):
            return
        await asyncio.to_thread(index.tried.wait, seconds)

    def close(self) -> None:
        """Stop embedding in the background."""
        self._closed.set()

    async def _select(self, index: ContextIndex, query: str, limits: SmartLimits) -> Selection:
        counts = (limits.max_skills, limits.max_memory)
        ranker, problem = BY_WORDS, None
        found: tuple[list[Ranked], list[Ranked]] | None = None
        if self._embedder is not None and (index.skills or index.memory):
            found, problem = await self._by_meaning(self._embedder, index, query, counts)
            if found is not None:
                ranker = self._embedder.name
        skills, memory = found or index.by_words(query, *counts)
        budget = limits.max_tokens or None
        taken, told_skills = choose(
            "skill",
            skills,
            index.skill_names,
            index.skill_tokens,
            count=limits.max_skills,
            budget=budget,
        )
        if budget is not None:
            budget -= sum(index.skill_tokens[position] for position in taken)
        pieces, told_memory = choose(
            "memory",
            memory,
            index.memory_names,
            index.memory_tokens,
            count=limits.max_memory,
            budget=budget,
        )
        return Selection(
            ranker=ranker,
            skills=tuple(index.skills[position].name for position in taken),
            memory=tuple(index.memory[position] for position in pieces),
            candidates=(*told_skills, *told_memory),
            problem=problem,
        )

    async def _by_meaning(
        self, embedder: Embedder, index: ContextIndex, query: str, counts: tuple[int, int]
    ) -> tuple[tuple[list[Ranked], list[Ranked]] | None, str | None]:
        """What fits by meaning, or None and why not."""
        if index.vectors is None:
            return None, index.embedding_problem or "the workspace is being embedded"
        if self._rest is not None and self._clock() < self._rest[0]:
            return None, self._rest[1]
        try:
            return index.by_meaning(await embedder.query(query), *counts), None
        except EmbeddingError as exc:
            problem = exc.problem
        except Exception as exc:  # noqa: BLE001 - whatever a model library raises; words do
            problem = f"embedding the message failed ({type(exc).__name__})"
        self._rest = self._clock() + QUERY_REST_SECONDS, problem
        count_failure("query")
        log.warning("smart_context.query_failed", problem=problem)
        return None, problem

    def _embed(self, embedder: Embedder, root: Path, index: ContextIndex) -> None:
        waits = iter((*self._retry_seconds, *self._retry_seconds[-1:]))
        pause = 0.0
        while not self._closed.wait(pause) and self._newest.get(root) is index:
            if self._embed_once(embedder, root, index):
                return
            pause = next(waits, pause)

    def _embed_once(self, embedder: Embedder, root: Path, index: ContextIndex) -> bool:
        """Whether there is no need to try again."""
        with self._one_at_a_time:
            cache = self._caches.setdefault(root, CachedDocuments(embedder, self._store))
            try:
                index.vectors = cache.documents(index.texts_to_embed())
            except EmbeddingError as exc:
                problem, lasting = exc.problem, exc.lasting
            except Exception as exc:  # noqa: BLE001 - whatever a model library raises; words do
                problem, lasting = f"embedding failed ({type(exc).__name__})", False
            else:
                index.embedding_problem = None
                index.tried.set()
                return True
        index.embedding_problem = problem
        index.tried.set()
        count_failure("embed")
        log.warning("smart_context.embedding_failed", problem=problem, instead="ranking by words")
        return lasting
