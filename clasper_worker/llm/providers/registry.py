"""The providers of models. One more is a file that declares it, its test, and a line here."""

from __future__ import annotations

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.llm.providers.openai_client import OPENAI
from clasper_worker.llm.providers.provider import Provider, ProviderClient

PROVIDERS: tuple[Provider, ...] = (OPENAI,)

# Names that are refused rather than taken for a part of a model's name and sent to OpenAI.
NOT_SERVED = frozenset({"anthropic", "gemini", "google", "xai", "groq", "mistral", "openrouter"})

_BY_NAME = {name: one for one in PROVIDERS for name in (one.name, *one.aliases)}


def provider_of(name: str) -> Provider | None:
    """The provider of that name or alias; None where there is none."""
    return _BY_NAME.get(name)


def is_provider(name: str) -> bool:
    """Whether it is a provider's name, served or not."""
    return name in _BY_NAME or name in NOT_SERVED


def connect_providers(settings: ModelsGroup) -> dict[str, ProviderClient]:
    """Open all of them, by name; nothing is connected to yet."""
    return {one.name: one.connect(one, settings) for one in PROVIDERS}
