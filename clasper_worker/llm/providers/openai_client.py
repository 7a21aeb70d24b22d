"""OpenAI as a provider, at its own address or at any other that speaks its API."""

from __future__ import annotations

from openai import AsyncOpenAI

from clasper_worker.config.groups import ModelsGroup
from clasper_worker.engine.circuit.gates import Gates
from clasper_worker.engine.http.client import open_http_client
from clasper_worker.llm.dialect import Dialect, KnownDialect
from clasper_worker.llm.messages import ChatModel
from clasper_worker.llm.providers.openai import OpenAICompatibleModel
from clasper_worker.llm.providers.provider import ModelRef, Provider

# After a passing failure, 0.5 to 8 s apart: more would hold a turn that its fallback could answer.
_RETRIES = 3


class OpenAIClient:
    """The connections to one address that speaks OpenAI's API.

    Args:
        provider: whose address and key it is.
        settings: what the operator configured.

    Attributes:
        sdk: the client for whatever else is asked there.
    """

    def __init__(self, provider: Provider, settings: ModelsGroup) -> None:
        self._provider = provider
        self._settings = settings
        self._known: dict[ModelRef, KnownDialect] = {}
        self._address = provider.address(settings)
        http_client = open_http_client(settings.clasper_llm_timeout_sec, server=self._address)
        self.sdk = AsyncOpenAI(
            api_key=provider.key(settings) or "none",  # many compatible servers need no key
            base_url=self._address,
            max_retries=0,  # ours, in the model: all turns wait together
            timeout=http_client.timeout,
            http_client=http_client,
        )

    def model(
        self,
        ref: ModelRef,
        gates: Gates | None,
        *,
        has_fallback: bool = False,
        is_configured: bool = True,
    ) -> ChatModel:
        """See `ProviderClient.model`; all that ask one model share what is known of it."""
        first = KnownDialect(self._provider.first_dialect(self._address))
        names = [ref.name] if is_configured else []
        return OpenAICompatibleModel(
            self.sdk,
            ref,
            max_output_tokens=self._settings.clasper_llm_max_output_tokens,
            retries=_RETRIES if gates else 0,
            gate=None if gates is None else gates.gate(str(self.sdk.base_url), *names),
            has_fallback=has_fallback,
            timeout_seconds=self._settings.clasper_llm_timeout_sec,
            known=self._known.setdefault(ref, first) if is_configured else first,
        )

    async def close(self) -> None:
        """See `ProviderClient.close`."""
        await self.sdk.close()


OPENAI = Provider(
    name="openai",
    base_url="https://api.openai.com/v1",
    key_variables=("OPENAI_API_KEY",),
    connect=OpenAIClient,
    url_variable="OPENAI_BASE_URL",
    dialect=Dialect("max_completion_tokens"),
)
