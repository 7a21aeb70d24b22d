"""What a provider of models declares of itself, and what it opens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import SecretStr

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.engine.circuit.gates import Gates
from clasper_worker.llm.dialect import Dialect
from clasper_worker.llm.messages import ChatModel


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model at a provider, e.g. ``openai`` and ``gpt-4o-mini``."""

    provider: str
    name: str


class ProviderClient(Protocol):
    """A provider's connections, on one event loop."""

    def model(
        self,
        ref: ModelRef,
        gates: Gates | None,
        *,
        has_fallback: bool = False,
        is_configured: bool = True,
    ) -> ChatModel:
        """One of its models.

        Args:
            ref: which one.
            gates: where its gate is; None sends every request at once, and none again.
            has_fallback: whether another model is asked where this one is not available.
            is_configured: whether it is one of the operator's, and not one that a caller named:
                only then it has a gate of its own, beside its host's, and is remembered.
        """
        ...

    async def close(self) -> None:
        """Close the connections."""
        ...


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider.

    Attributes:
        name: before the slash in ``provider/model``.
        base_url: where its API is.
        key_variables: the settings that may hold its key; the first that is set counts.
        connect: opens its connections; nothing is sent yet.
        url_variable: the setting that names another address of the same API.
        aliases: other names of it.
        dialect: how its models are asked at its own address, as long as nothing more is known.
    """

    name: str
    base_url: str
    key_variables: tuple[str, ...]
    connect: Callable[[Provider, ModelsGroup], ProviderClient]
    url_variable: str | None = None
    aliases: tuple[str, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)

    def key(self, settings: ModelsGroup) -> str | None:
        """The configured key."""
        for variable in self.key_variables:
            value: SecretStr | None = getattr(settings, variable.lower())
            if value is not None:
                return value.get_secret_value()
        return None

    def lacks_key(self, settings: ModelsGroup) -> bool:
        """Whether it wants a key and has none; another address of its API may need none."""
        keyless = not self.key_variables or self.address(settings) != self.base_url
        return not keyless and self.key(settings) is None

    def address(self, settings: ModelsGroup) -> str:
        """Where it is asked: its own address, or the configured one."""
        other = getattr(settings, self.url_variable.lower()) if self.url_variable else None
        return other or self.base_url

    def first_dialect(self, address: str) -> Dialect:
        """How a model at this address is asked before anything is known of it."""
        return self.dialect if address.startswith(self.base_url.rstrip("/")) else Dialect()
