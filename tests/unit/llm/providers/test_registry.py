"""What the registry says of the providers, and what it opens."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clasper_worker.errors import ConfigurationError
from clasper_worker.llm.dialect import Dialect
from clasper_worker.llm.providers import catalogue, registry
from clasper_worker.llm.providers.openai_client import OPENAI, OpenAIClient
from clasper_worker.llm.providers.registry import (
    NOT_SERVED,
    PROVIDERS,
    connect_providers,
    is_provider,
    provider_of,
)
from clasper_worker.runtime import check_settings


def test_no_name_or_alias_is_two_providers() -> None:
    names = [name for one in PROVIDERS for name in (one.name, *one.aliases)]
    assert len(names) == len(set(names))
    assert not NOT_SERVED & set(names)
    assert all(is_provider(name) for name in (*names, *NOT_SERVED))
    assert all(provider_of(name) is None for name in (*NOT_SERVED, "meta-llama"))


@pytest.mark.parametrize("provider", PROVIDERS, ids=lambda provider: provider.name)
def test_its_variables_are_settings(provider: Any, settings_of: Any) -> None:
    settings = settings_of()
    assert provider.key(settings) is None
    assert provider.address(settings) == provider.base_url


async def test_openai_is_asked_at_its_own_address_or_the_one_that_is_set(settings_of: Any) -> None:
    settings = settings_of(openai_api_key="sk-SECRET", openai_base_url="http://model.test/v1/")
    opened = connect_providers(settings)
    client = opened["openai"]
    assert isinstance(client, OpenAIClient)
    assert str(client.sdk.base_url) == "http://model.test/v1/"
    assert client.sdk.api_key == "sk-SECRET"
    await client.close()


def test_only_its_own_address_is_asked_in_its_own_words() -> None:
    assert OPENAI.first_dialect(OPENAI.base_url) == Dialect("max_completion_tokens")
    assert OPENAI.first_dialect("http://model.test/v1") == Dialect()


@pytest.fixture
def acme(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second provider, with a key and an address of its own."""
    one = replace(
        OPENAI,
        name="acme",
        base_url="https://api.acme.test",
        key_variables=("INTERNAL_API_TOKEN",),
        url_variable=None,
    )
    monkeypatch.setitem(registry._BY_NAME, "acme", one)
    for module in (registry, catalogue):
        monkeypatch.setattr(module, "PROVIDERS", (OPENAI, one))


@pytest.mark.usefixtures("acme")
@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"llm_model_default": "acme/a", "internal_api_token": "k"}, None),
        ({"llm_model_default": "acme/a", "openai_api_key": "k"}, "INTERNAL_API_TOKEN"),
        ({"llm_model_default": "acme/a", "openai_base_url": "http://m"}, "INTERNAL_API_TOKEN"),
        ({"llm_model_best": "acme/a", "openai_api_key": "k"}, "INTERNAL_API_TOKEN"),
        ({"llm_model_fallback": "acme/a", "internal_api_token": "k"}, "OPENAI_API_KEY"),
        ({"openai_base_url": "http://m"}, None),
        ({}, "OPENAI_API_KEY"),
    ],
)
def test_each_provider_of_a_configured_model_needs_its_key_and_no_other_does(
    given: Any, missing: str | None, settings_of: Any, tmp_path: Path
) -> None:
    settings = settings_of(
        backend_url="http://b", agent_jwt_secret="s" * 32, clasper_workspace=tmp_path, **given
    )
    if missing is None:
        check_settings(settings)
        return
    with pytest.raises(ConfigurationError, match=f"No {missing} is configured") as caught:
        check_settings(settings)
    assert caught.value.details["variable"] == missing
