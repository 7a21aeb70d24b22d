"""What the registry says of the providers, and what it opens."""

from typing import Any

import pytest

from clasper_worker.llm.dialect import Dialect
from clasper_worker.llm.providers.openai_client import OPENAI, OpenAIClient
from clasper_worker.llm.providers.registry import (
    NOT_SERVED,
    PROVIDERS,
    connect_providers,
    is_provider,
    provider_of,
)


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
