"""The composition root: makes the collaborators of a turn, once per event loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Self

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.config.settings import Settings
from clasper_worker.engine.circuit.gates import Gates
from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.engine.circuit.store import RedisStore
from clasper_worker.engine.http.client import open_http_client
from clasper_worker.engine.redis.scripts import State, redis_client, redis_lock
from clasper_worker.errors import ConfigurationError, InvalidRequestError
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.llm.messages import ChatModel
from clasper_worker.llm.providers.catalogue import (
    TIERS,
    ModelRef,
    Tier,
    model_chain,
    parse_model,
    providers_without_key,
)
from clasper_worker.llm.providers.openai_client import OPENAI, OpenAIClient
from clasper_worker.llm.providers.provider import ProviderClient
from clasper_worker.llm.providers.registry import connect_providers
from clasper_worker.llm.windows import model_windows
from clasper_worker.mission_control.agent_tokens import AgentTokens
from clasper_worker.mission_control.client import MissionControl
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.mission_control.task_finder import TaskFinder
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.observability.events import EventListeners
from clasper_worker.observability.turn_metrics import TurnMetrics
from clasper_worker.prompt.context import AgentContext, prompt_settings
from clasper_worker.prompt.workspace.reader import missing_workspace
from clasper_worker.startup_checks import refuse_contradictions
from clasper_worker.streams.keys import KEPT_SECONDS
from clasper_worker.streams.writer import StreamWriter
from clasper_worker.tools.built_in import BUILT_IN_TOOLS
from clasper_worker.tools.registry import Toolbox
from clasper_worker.turn.context import TurnDependencies, TurnSettings
from clasper_worker.turn.journal_store import RedisLedger
from clasper_worker.turn.progress import ProgressEvents
from clasper_worker.usage.recorder import UsageRecorder

_REDELIVERY_SECONDS = 3600.0
_NAMED_MODELS = 64

# A turn waits out a restart of Redis, within its soft limit, rather than fail of it.
_STATE_PATIENCE_SECONDS = 120.0


class Runtime:
    """What the turns of one event loop share: connections, tokens, tools, the workspace.

    Make it inside the loop that will use it, with `open`.
    """

    def __init__(
        self,
        settings: Settings,
        turns: TurnDependencies,
        internal: InternalBackend,
        usage: UsageRecorder,
        named: Callable[[str], ChatModel],
        closers: tuple[Callable[[], object], ...],
    ) -> None:
        self.settings = settings
        self.turns = turns
        self.internal = internal
        self.usage = usage
        self._named = named
        self._closers = closers

    @classmethod
    async def open(cls, settings: Settings) -> Self:
        """Wire everything up. Nothing is connected to yet.

        Raises:
            ConfigurationError: a setting that turns need is missing; names it.
        """
        backend_url = check_settings(settings)
        tokens = AgentTokens.from_settings(settings)
        clients = connect_providers(settings)
        embeddings = OpenAIClient(OPENAI, settings)
        # In a thread: it reads and indexes files.
        context = await asyncio.to_thread(AgentContext.open, settings, embeddings.sdk)
        windows = await asyncio.to_thread(model_windows, settings)
        backend_http = open_http_client(settings.clasper_backend_timeout_sec, backend_url)
        redis = redis_client(settings.redis_url, settings)
        state = State(redis, seconds=_STATE_PATIENCE_SECONDS)
        running_seconds = math.ceil(settings.clasper_turn_hard_limit_sec) + KEPT_SECONDS
        streams = StreamWriter(state, running_seconds=running_seconds)
        gates = Gates(RedisStore(redis), GatePolicy.from_settings(settings))
        transport = BackendTransport(
            backend_http,
            gate=gates.gate(backend_url),
        )
        models = {tier: _models(settings, tier, clients, gates) for tier in TIERS}

        def model(tier: Tier) -> ChatModel:
            return ModelChain(models[tier])

        usage = UsageRecorder(
            state,
            ttl_seconds=journal_seconds(settings),
            workspace=context.workspaces.name_for,
        )
        turns = TurnDependencies(
            mission_control=MissionControl(transport, tokens),
            ledger=RedisLedger(state, ttl_seconds=journal_seconds(settings)),
            tasks=TaskFinder(redis_lock(redis, patience=settings.clasper_turn_soft_limit_sec)),
            toolbox=Toolbox(BUILT_IN_TOOLS),
            workspace=context.workspaces.snapshot,
            window=windows.__getitem__,
            smart=context.smart,
            model=model,
            now=lambda: datetime.now(UTC),
            events=EventListeners((TurnMetrics(), ProgressEvents(), usage, streams)),
            settings=TurnSettings(
                max_steps=settings.clasper_max_steps,
                default_task=settings.clasper_default_task,
                prompt=prompt_settings(settings),
                soft_limit_seconds=settings.clasper_turn_soft_limit_sec,
                streams_always=settings.clasper_stream == "always",
            ),
        )
        closers = (
            embeddings.close,
            *(client.close for client in clients.values()),
            backend_http.aclose,
            gates.close,
            streams.close,
            usage.close,
            state.aclose,
            redis.aclose,
            context.close,
        )
        internal = InternalBackend.from_settings(settings, transport)

        @lru_cache(_NAMED_MODELS)  # callers choose the names
        def named(name: str) -> ChatModel:
            ref = _asked_for(settings, name)
            return clients[ref.provider].model(ref, gates, is_configured=False)

        return cls(settings, turns, internal, usage, named, closers)

    def model_named(self, name: str) -> ChatModel:
        """The model of a tier, with its fallback, or the one of that name, which has none.

        Raises:
            InvalidRequestError: the name cannot be used.
        """
        tier = next((tier for tier in TIERS if tier == name), None)
        return self._named(name) if tier is None else self.turns.model(tier)

    async def close(self) -> None:
        """Close the connections and stop watching the workspace."""
        for close in self._closers:
            outcome = close()
            if hasattr(outcome, "__await__"):
                await outcome


def check_settings(settings: Settings) -> str:
    """Check what turns need, as far as that goes without connecting; returns the backend's URL.

    Raises:
        ConfigurationError: a setting is missing or cannot be used; names it.
    """
    if settings.backend_url is None:
        raise ConfigurationError(
            "No BACKEND_URL is configured: set it to your backend's address, or run"
            " `clasper up`, which brings a reference backend",
            {"variable": "BACKEND_URL"},
        )
    for provider in providers_without_key(settings):
        variable, other = provider.key_variables[0], provider.url_variable
        address = f" or point {other} at a server that speaks the same API," if other else ""
        raise ConfigurationError(
            f"No {variable} is configured: set it,{address} or run `clasper up`, which brings an"
            " offline model",
            {"variable": variable},
        )
    AgentTokens.from_settings(settings)
    refuse_contradictions(settings)
    if not settings.clasper_workspace.is_dir():
        raise missing_workspace(settings.clasper_workspace)
    return settings.backend_url


def journal_seconds(settings: Settings) -> int:
    """How long turns are remembered: as their results, and well past the last of their runs."""
    a_run = settings.clasper_turn_hard_limit_sec + settings.clasper_visibility_timeout_sec
    longest = a_run * settings.clasper_max_deliveries + _REDELIVERY_SECONDS
    return max(settings.clasper_result_ttl_sec, math.ceil(longest))


def _models(
    settings: ModelsGroup, tier: Tier, clients: Mapping[str, ProviderClient], gates: Gates
) -> tuple[ChatModel, ...]:
    refs = model_chain(settings, tier)
    return tuple(
        clients[ref.provider].model(ref, gates, has_fallback=ref is not refs[-1]) for ref in refs
    )


def _asked_for(settings: ModelsGroup, name: str) -> ModelRef:
    try:
        return parse_model(name, default_provider=settings.llm_provider, variable="model")
    except ConfigurationError as exc:  # the caller's, and not the operator's
        field = {"field": "model", "problem": "is no model's name", "fix": "send another"}
        raise InvalidRequestError(f"model: {exc}", {"fields": [field]}) from None
