"""Which provider serves a model name, and which models a turn may use."""

from __future__ import annotations

from typing import Literal, get_args

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.errors import ConfigurationError
from clasper_worker.llm.providers.provider import ModelRef, Provider
from clasper_worker.llm.providers.registry import PROVIDERS, is_provider, provider_of

__all__ = ["TIERS", "ModelRef", "Tier", "model_chain", "parse_model", "providers_without_key"]

Tier = Literal["default", "cheap", "best"]
TIERS: tuple[Tier, ...] = get_args(Tier)


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
    if slash and is_provider(prefix):
        provider, name = prefix, rest
    if not name:
        raise ConfigurationError(
            f"{variable} is empty: set it to a model such as gpt-4o-mini", {"variable": variable}
        )
    served = provider_of(provider)
    if served is None:
        raise ConfigurationError(
            f"{variable}={value!r} names the provider {provider!r}, which is not served directly:"
            " point OPENAI_BASE_URL at its OpenAI-compatible endpoint and give the model's name"
            " without the provider",
            {"variable": variable},
        )
    return ModelRef(served.name, name)


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


def providers_without_key(settings: ModelsGroup) -> tuple[Provider, ...]:
    """The providers of configured models that lack their key.

    Raises:
        ConfigurationError: a model's name cannot be used.
    """
    asked = {ref.provider for tier in TIERS for ref in model_chain(settings, tier)}
    return tuple(one for one in PROVIDERS if one.name in asked and one.lacks_key(settings))
