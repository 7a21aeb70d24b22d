"""Which provider serves a model name, and which models a turn may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.errors import ConfigurationError

Tier = Literal["default", "cheap", "best"]
TIERS: tuple[Tier, ...] = get_args(Tier)

# Prefixes that name a provider. Only OpenAI's API (and whatever speaks it, by OPENAI_BASE_URL) is
# served so far; a name with another of these prefixes is refused rather than sent to OpenAI.
KNOWN_PROVIDERS = frozenset(
    {"openai", "anthropic", "gemini", "xai", "groq", "mistral", "openrouter"}
)
SERVED_PROVIDERS = frozenset({"openai"})


@dataclass(frozen=True, slots=True)
class ModelRef:
    """A model at a provider, e.g. ``openai`` and ``gpt-4o-mini``."""

    provider: str
    name: str


def parse_model(value: str, *, default_provider: str, variable: str) -> ModelRef:
    """Read ``model`` or ``provider/model``.

    A prefix that is no provider's name belongs to the model (``meta-llama/Llama-3-8B`` behind an
    OpenAI-compatible server), and so do further slashes.

    Raises:
        ConfigurationError: the name is empty or its provider is not served; names ``variable``.
    """
    name = value.strip()
    prefix, slash, rest = name.partition("/")
    provider = default_provider
    if slash and prefix in KNOWN_PROVIDERS:
        provider, name = prefix, rest
    if not name:
        raise ConfigurationError(
            f"{variable} is empty: set it to a model such as gpt-4o-mini", {"variable": variable}
        )
    if provider not in SERVED_PROVIDERS:
        raise ConfigurationError(
            f"{variable}={value!r} names the provider {provider!r}, which is not served directly:"
            " point OPENAI_BASE_URL at its OpenAI-compatible endpoint and give the model's name"
            " without the provider",
            {"variable": variable},
        )
    return ModelRef(provider, name)


def model_chain(settings: ModelsGroup, tier: Tier = "default") -> tuple[ModelRef, ...]:
    """The models of a tier in the order they are tried: the tier's own, then the fallback.

    A tier that is not set (``LLM_MODEL_CHEAP``, ``LLM_MODEL_BEST``) is the default model.

    Raises:
        ConfigurationError: a model's name cannot be used.
    """
    tiers = {"cheap": settings.llm_model_cheap, "best": settings.llm_model_best}
    chosen = tiers.get(tier)
    variable = f"LLM_MODEL_{tier.upper()}" if chosen else "LLM_MODEL_DEFAULT"
    names = [(variable, chosen or settings.llm_model_default)]
    if settings.llm_model_fallback:
        names.append(("LLM_MODEL_FALLBACK", settings.llm_model_fallback))
    refs = (
        parse_model(name, default_provider=settings.llm_provider, variable=variable)
        for variable, name in names
    )
    return tuple(dict.fromkeys(refs))
