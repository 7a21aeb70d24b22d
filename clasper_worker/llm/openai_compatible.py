"""OpenAI's chat completions API and whatever speaks it, through the ``openai`` client.

The client's timeouts and connection pool are used, but not its retries, each of which would sleep
for itself: 429, 5xx, timeouts and lost connections are waited out at the model's gate, together
with all other turns, or tried again after a pause (CLASPER_LLM_RETRIES). The client's low-level
``post`` with a plain body and a plain JSON answer is used instead of ``chat.completions.create``:
the same request for half the CPU, since neither the parameters nor the answer go through its typed
models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx2
import openai
from openai import AsyncOpenAI
from openai._types import RequestOptions

from clasper_worker.errors import (
    ModelAuthError,
    ModelError,
    ModelProtocolError,
    ModelRejectedError,
    ModelUnavailableError,
)
from clasper_worker.http_redirects import is_redirect, told
from clasper_worker.llm.catalogue import ModelRef
from clasper_worker.llm.messages import (
    ChatMessage,
    ModelReply,
    TokenUsage,
    ToolCall,
    ToolChoice,
    ToolSpec,
)
from clasper_worker.resilience.calls import (
    NO_ANSWER,
    NOTHING,
    WORKS,
    Pace,
    Verdict,
    call_persistently,
    patience_for,
    verdict_on_status,
)
from clasper_worker.resilience.gate import HostGate
from clasper_worker.resilience.request import GateClosedError, Patience
from clasper_worker.resilience.retry_after import retry_after
from clasper_worker.whole_text import json_of, whole

_WITH_FALLBACK_SECONDS = 2.0
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})

# The client would make one, from the system's randomness, and not send it.
_NO_KEY: RequestOptions = {"idempotency_key": "none"}


class OpenAICompatibleModel:
    """One model behind OpenAI's chat completions API.

    Args:
        client: holds the key, base URL and connections, and makes no retries; shared by all
            models of a worker.
        ref: which model.
        max_output_tokens: cap on a reply, in tokens; None leaves it to the provider.
        retries: after passing failures, those aside that the gate knows of.
        gate: the model's; None sends every request at once.
        has_fallback: whether another model is asked where this one is not available: then an
            outage is not waited for, and a rate limit for two seconds at most.
    """

    def __init__(
        self,
        client: AsyncOpenAI,
        ref: ModelRef,
        *,
        max_output_tokens: int | None = None,
        retries: int = 0,
        gate: HostGate | None = None,
        has_fallback: bool = False,
    ) -> None:
        self._client = client
        self._ref = ref
        self._pace = Pace(retries + 1, first_pause=0.5, longest_pause=8.0)
        self._gate = gate
        self._has_fallback = has_fallback
        # Whole, since the client would put it together anew for each request.
        self._url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        self._fixed: dict[str, Any] = {"model": ref.name}
        if max_output_tokens is not None:
            official = str(client.base_url).startswith("https://api.openai.com")
            cap = "max_completion_tokens" if official else "max_tokens"
            self._fixed[cap] = max_output_tokens

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
    ) -> ModelReply:
        """Ask for the next message; see `ChatModel.complete`."""
        body = {**self._fixed, "messages": [_wire_message(message) for message in messages]}
        if tools:
            body["tools"] = [_wire_tool(tool) for tool in tools]
            if tool_choice != "auto":
                body["tool_choice"] = tool_choice
        try:
            answer = await self._ask(body)
        except GateClosedError as exc:
            if isinstance(exc.__cause__, openai.OpenAIError):
                raise translate_error(exc.__cause__, self._ref.name) from exc
            raise ModelUnavailableError(
                f"The model {self._ref.name!r} is not available, or limits its rate, and was not"
                " asked again",
                {"model": self._ref.name},
            ) from exc
        except openai.OpenAIError as exc:
            raise translate_error(exc, self._ref.name) from exc
        except ValueError as exc:
            raise _not_the_protocol(self._ref.name, "its body is not JSON") from exc
        return parse_completion(answer, self._ref)

    async def _ask(self, body: dict[str, Any]) -> object:
        async def send() -> object:
            response = await self._client.post(
                self._url, body=body, cast_to=httpx2.Response, options=_NO_KEY
            )
            return json_of(response.content)

        patience = patience_for(self._gate)
        if self._has_fallback:
            patience = Patience(_WITH_FALLBACK_SECONDS, for_outages=False)
        return await call_persistently(self._gate, patience, send, _judge, self._pace)


def _judge(exc: Exception) -> Verdict:
    """What an error of the client tells of the provider."""
    if isinstance(exc, openai.APIStatusError):
        headers = exc.response.headers
        passing = _is_passing(exc) and headers.get("x-should-retry") != "false"
        return verdict_on_status(exc.status_code, retry_after(headers), passing=passing)
    if isinstance(exc, openai.APIConnectionError):
        return NO_ANSWER
    return WORKS if isinstance(exc, openai.OpenAIError | ValueError) else NOTHING


def _is_passing(exc: openai.APIStatusError) -> bool:
    if exc.status_code == 429 and exc.code == "insufficient_quota":
        return False
    return exc.status_code in _TRANSIENT_STATUSES or exc.status_code >= 500


def _wire_message(message: ChatMessage) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        wire["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        wire["tool_call_id"] = message.tool_call_id
    return wire


def _wire_tool(tool: ToolSpec) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": tool.name,
            "description": tool.description,
            "parameters": tool.parameters,
        },
    }


def parse_completion(answer: object, ref: ModelRef) -> ModelReply:
    """Read a chat completion.

    Raises:
        ModelProtocolError: it is not of the API's form; says what is wrong with it.
    """
    try:
        data = cast("Mapping[str, Any]", answer)
        choice = data["choices"][0]
        message = choice["message"]
        text = message.get("content") or message.get("refusal") or ""
        calls = tuple(
            ToolCall(str(call["id"]), str(call["function"]["name"]), _arguments(call["function"]))
            for call in message.get("tool_calls") or ()
        )
        prompt, completion, cached = _token_counts(data.get("usage") or {})
        reply = ModelReply(
            text=_well_formed(text) if isinstance(text, str) else text,
            tool_calls=calls,
            usage=TokenUsage(prompt, completion, cached),
            provider=ref.provider,
            model=str(data.get("model") or ref.name),
            finish_reason=choice.get("finish_reason"),
        )
    except (LookupError, TypeError, AttributeError, ValueError) as exc:
        raise _not_the_protocol(ref.name, f"{type(exc).__name__} while reading it") from exc
    if not isinstance(text, str):
        raise _not_the_protocol(ref.name, "message.content is not text")
    return reply


def _token_counts(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """Prompt, completion and cached tokens; compatible servers do not always add up."""
    details = usage.get("prompt_tokens_details") or {}
    prompt = max(0, int(usage.get("prompt_tokens") or 0))
    completion = max(0, int(usage.get("completion_tokens") or 0))
    return prompt, completion, min(prompt, max(0, int(details.get("cached_tokens") or 0)))


def _well_formed(text: str) -> str:
    """The text without lone surrogates, which JSON can carry and UTF-8 cannot."""
    return whole(text)


def _arguments(function: Mapping[str, Any]) -> str:
    arguments = function.get("arguments")
    # Some compatible servers send an object where the API has JSON text.
    return arguments if isinstance(arguments, str) else json.dumps(arguments or {})


def _not_the_protocol(model: str, problem: str) -> ModelProtocolError:
    return ModelProtocolError(
        f"The model {model!r} gave an answer that is not a chat completion: {problem}."
        " Check OPENAI_BASE_URL.",
        {"model": model},
    )


def translate_error(exc: openai.OpenAIError, model: str) -> ModelError:
    """Turn the client's error into ours.

    The provider's own text is left out: it may quote the prompt or part of the key.
    """
    if isinstance(exc, openai.APIStatusError):
        return _status_error(exc, model)
    # The aiohttp transport reports a refused connection as a connect timeout.
    refused = isinstance(exc.__cause__, httpx2.ConnectTimeout | httpx2.ConnectError)
    if isinstance(exc, openai.APITimeoutError) and not refused:
        return ModelUnavailableError(
            f"The model {model!r} did not answer in time (CLASPER_LLM_TIMEOUT_SEC)",
            {"model": model},
        )
    if isinstance(exc, openai.APIConnectionError):
        return ModelUnavailableError(
            f"The model {model!r} could not be reached, or the connection was lost: check"
            " OPENAI_BASE_URL",
            {"model": model},
        )
    if isinstance(exc, openai.APIResponseValidationError):
        return _not_the_protocol(model, "it does not have the API's form")
    return ModelError(
        f"The model {model!r} could not be asked: {type(exc).__name__}", {"model": model}
    )


def _status_error(exc: openai.APIStatusError, model: str) -> ModelError:
    status = exc.status_code
    details = {"model": model, "status": status, "provider_code": exc.code}
    if is_redirect(status):
        url, location = str(exc.request.url), exc.response.headers.get("location")
        return ModelRejectedError(
            f"The provider of {model!r} {told('POST', url, status, location)}: set OPENAI_BASE_URL"
            " to the address where it answers itself",
            {**details, "variable": "OPENAI_BASE_URL"},
        )
    if status in {401, 403}:
        return ModelAuthError(
            f"The provider refused the key for {model!r} (HTTP {status}): check OPENAI_API_KEY",
            details,
        )
    if status == 429 and exc.code == "insufficient_quota":
        return ModelRejectedError(
            f"The provider's quota for {model!r} is used up (HTTP 429): check its billing", details
        )
    if _is_passing(exc):
        what = "limits its rate" if status == 429 else "is not available"
        return ModelUnavailableError(
            f"The model {model!r} {what} (HTTP {status}), after retries", details
        )
    return ModelRejectedError(
        f"The provider refused the request for {model!r}"
        f" (HTTP {status}{f', {exc.code}' if exc.code else ''})",
        details,
    )
