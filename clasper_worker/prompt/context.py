"""Workspaces and smart context, made from the settings: for the worker and the inspector alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from openai import AsyncOpenAI, DefaultHttpxClient, OpenAI

from clasper_worker.config.groups import DEFAULT_EMBEDDING_MODEL, WorkspaceGroup
from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.redirects import is_loopback
from clasper_worker.engine.redis.connections import blocking_client
from clasper_worker.prompt.models import PromptSettings
from clasper_worker.prompt.retrieval.embedders import DEFAULT_MODEL, LocalEmbedder, OpenAIEmbedder
from clasper_worker.prompt.retrieval.embedding import Embedder, RedisVectorStore, VectorStore
from clasper_worker.prompt.retrieval.selection import SmartLimits
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.workspaces import Workspaces

_BACKGROUND_TIMEOUT_SECONDS = 60.0
_REDIS_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class AgentContext:
    """What turns tell their agents from.

    Attributes:
        workspaces: by name.
        smart: chooses what fits a message; None where ``CLASPER_SMART_CONTEXT`` is off.
    """

    workspaces: Workspaces
    smart: SmartContext | None

    @classmethod
    def open(cls, settings: Settings, llm: AsyncOpenAI) -> Self:
        """Read and index the workspaces, and watch them until `close`; blocks while it reads.

        Args:
            settings: the operator's.
            llm: client for embeddings of turns' messages, bound to their event loop.

        Raises:
            WorkspaceError: the default workspace is not there.
        """
        smart = _smart_context(settings, llm) if settings.clasper_smart_context else None
        workspaces = Workspaces.open(
            settings.clasper_workspace,
            settings.clasper_workspaces,
            prepare=None if smart is None else smart.prepare,
        )
        return cls(workspaces, smart)

    def close(self) -> None:
        """Stop watching and embedding."""
        self.workspaces.close()
        if self.smart is not None:
            self.smart.close()


def prompt_settings(settings: WorkspaceGroup) -> PromptSettings:
    """What the operator configured about prompts."""
    return PromptSettings(
        timezone=settings.clasper_default_timezone,
        include_time=settings.clasper_include_time_context,
        smart_limits=SmartLimits(
            max_skills=settings.clasper_smart_context_max_skills,
            max_memory=settings.clasper_smart_context_max_memory,
            max_tokens=settings.clasper_smart_context_max_tokens,
        ),
        warn_from_percent=settings.clasper_context_warning_threshold,
    )


def _smart_context(settings: Settings, llm: AsyncOpenAI) -> SmartContext:
    model = settings.clasper_embedding_model
    embedder: Embedder | None = None
    store: VectorStore | None = None
    if settings.clasper_embedding_provider == "local":
        embedder = LocalEmbedder(model)
    elif settings.clasper_embedding_provider == "openai":
        # The variable's default names a local model.
        name = DEFAULT_MODEL if model == DEFAULT_EMBEDDING_MODEL else model
        embedder = OpenAIEmbedder(llm, lambda: _blocking_client(llm), name)
        store = RedisVectorStore(
            blocking_client(
                settings.redis_url,
                settings,
                socket_timeout=_REDIS_SECONDS,
                socket_connect_timeout=_REDIS_SECONDS,
            )
        )
    return SmartContext(embedder, store)


def _blocking_client(llm: AsyncOpenAI) -> OpenAI:
    # Redirects are not followed: people's text and the key go where they are meant to go alone.
    http = DefaultHttpxClient(follow_redirects=False, trust_env=not is_loopback(llm.base_url.host))
    return OpenAI(
        api_key=llm.api_key,
        base_url=llm.base_url,
        timeout=_BACKGROUND_TIMEOUT_SECONDS,
        http_client=http,
    )
