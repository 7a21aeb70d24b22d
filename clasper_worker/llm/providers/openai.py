"""OpenAI's chat completions API and whatever speaks it, through the ``openai`` client.

The client's timeouts and connection pool are used, but not its retries, each of which would sleep
for itself: 429, 5xx, timeouts and lost connections are waited out at the model's gate, together
with all other turns, or tried again after a pause.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import httpx2
import openai
import structlog
from openai import AsyncOpenAI

from clasper_worker.engine.circuit.calls import (
    NO_ANSWER,
    NOTHING,
    WORKS,
    Pace,
    Verdict,
    call_persistently,
    patience_for,
    verdict_on_status,
)
from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.policy import GateClosedError, Outcome, Patience
from clasper_worker.engine.circuit.retry_after import retry_after
from clasper_worker.errors import (
    ModelUnavailableError,
)
from clasper_worker.llm.completion import read_completion
from clasper_worker.llm.dialect import Dialect, KnownDialect, wire_tools
from clasper_worker.llm.messages import (
    NO_OPTIONS,
    CallOptions,
    ChatMessage,
    Confirm,
    Listen,
    ModelReply,
    ReplyEnded,
    Restarted,
    ToolChoice,
    ToolSpec,
    UsageCounted,
)
from clasper_worker.llm.providers.openai_calls import STREAMED, ask_streamed, ask_whole
from clasper_worker.llm.providers.openai_errors import is_passing, not_the_protocol, translate_error
from clasper_worker.llm.providers.provider import ModelRef
from clasper_worker.llm.refusal import read_refusal
from clasper_worker.llm.response_body import BrokenAnswerError
from clasper_worker.llm.streamed_answer import tell_whole

log = structlog.get_logger(__name__)

_WITH_FALLBACK_SECONDS = 2.0

# An answer that is none, perhaps of something between us and the host, tells nothing of the host.
_BROKEN = Verdict(Outcome(), passing=True)


class _Tries:
    """What is done before each try of one call.

    Args:
        confirm: the turn's; see `ChatModel.complete`.
        listen: the listener, which is given `Restarted` before each try but the first.
    """

    def __init__(self, confirm: Confirm | None, listen: Listen | None) -> None:
        self._confirm = confirm
        self._made = False
        self.listen = listen

    async def begin(self) -> None:
        if self._confirm is not None:
            await self._confirm()
        if self._made and self.listen is not None:
            self.listen(Restarted())
        self._made = True


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
        timeout_seconds: how long one call may take, however fast the bytes come; None: the
            client's.
        known: how the model is asked, as far as that was found out; shared by those who ask it.
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
        timeout_seconds: float | None = None,
        known: KnownDialect | None = None,
    ) -> None:
        self._client = client
        self._ref = ref
        self._pace = Pace(retries + 1, first_pause=0.5, longest_pause=8.0, to="model")
        self._gate = gate
        self._has_fallback = has_fallback
        # Whole, since the client would put it together anew for each request.
        self._url = f"{str(client.base_url).rstrip('/')}/chat/completions"
        self._timeout = timeout_seconds or _seconds(client.timeout)
        self._fixed: dict[str, Any] = {"model": ref.name}
        if max_output_tokens is not None:
            self._fixed["max_tokens"] = max_output_tokens
        self._known = known or KnownDialect(Dialect())

    async def complete(
        self,
        messages: Sequence[ChatMessage],
        tools: Sequence[ToolSpec] = (),
        *,
        tool_choice: ToolChoice = "auto",
        confirm: Confirm | None = None,
        listen: Listen | None = None,
        options: CallOptions = NO_OPTIONS,
    ) -> ModelReply:
        """Ask for the next message; see `ChatModel.complete`."""
        parameters = self._fixed | _wanted(options, self._fixed.get("max_tokens"))
        if listen is not None:
            parameters |= STREAMED
        if tools:
            parameters["tools"] = wire_tools(tools)
            if tool_choice != "auto":
                parameters["tool_choice"] = tool_choice
        try:
            tries = _Tries(confirm, listen)
            answer = await self._ask_in_its_words(parameters, messages, tries)
        except GateClosedError as exc:
            if isinstance(exc.__cause__, openai.OpenAIError):
                raise translate_error(exc.__cause__, self._ref.name) from exc
            if isinstance(exc.__cause__, BrokenAnswerError):
                raise not_the_protocol(self._ref.name, str(exc.__cause__)) from exc
            raise ModelUnavailableError(
                f"The model {self._ref.name!r} is not available, or limits its rate, and was not"
                " asked again",
                {"model": self._ref.name},
            ) from exc
        except openai.OpenAIError as exc:
            raise translate_error(exc, self._ref.name) from exc
        except BrokenAnswerError as exc:
            raise not_the_protocol(self._ref.name, str(exc)) from exc
        reply = parse_completion(answer, self._ref)
        if listen is not None:
            listen(UsageCounted(reply.usage))
            listen(ReplyEnded(reply.finish_reason))
        return reply

    async def _ask_in_its_words(
        self,
        parameters: Mapping[str, Any],
        messages: Sequence[ChatMessage],
        tries: _Tries,
    ) -> object:
        """Ask, in other words where the provider says that these are not the model's."""
        begun = dialect = self._known.dialect
        tried = {dialect}
        while True:
            body = dialect.body(parameters, messages)
            try:
                answer = await self._ask(body, tries)
            except openai.APIStatusError as exc:
                changed = dialect.changed(read_refusal(exc.status_code, exc.body), body, messages)
                if changed is None or changed in tried:
                    raise
                tried.add(changed)
                dialect = changed
                continue
            dialect = dialect.for_other_calls(begun)
            if dialect is not begun and self._known.dialect != dialect:
                self._known.dialect = dialect
                changes = dialect.differences(begun)
                log.warning("model.asked_otherwise", model=self._ref.name, changed=changes)
            return answer

    async def _ask(self, body: dict[str, Any], tries: _Tries) -> object:
        async def send() -> object:
            await tries.begin()  # after whatever the gate made it wait for
            ask = (self._client, self._url, body, self._timeout)
            if tries.listen is None:
                return await ask_whole(*ask)
            if "stream" in body:
                return await ask_streamed(*ask, tries.listen)
            answer = await ask_whole(*ask)
            tell_whole(answer, tries.listen)
            return answer

        patience = patience_for(self._gate)
        if self._has_fallback:
            patience = Patience(_WITH_FALLBACK_SECONDS, for_outages=False)
        return await call_persistently(self._gate, patience, send, _judge, self._pace)


def _wanted(options: CallOptions, cap: int | None) -> dict[str, Any]:
    """The parameters of one call's options."""
    wanted: dict[str, Any] = {}
    if options.max_tokens is not None:
        wanted["max_tokens"] = options.max_tokens if cap is None else min(options.max_tokens, cap)
    if options.temperature is not None:
        wanted["temperature"] = options.temperature
    if options.schema is not None:
        # Not strict, which takes a part of JSON Schema alone: what comes is checked in any case.
        named = {"name": "output", "schema": options.schema}
        wanted["response_format"] = {"type": "json_schema", "json_schema": named}
    return wanted


def _seconds(timeout: object) -> float | None:
    """The client's limit on silences, as one for a whole call."""
    seconds = timeout.read if isinstance(timeout, httpx2.Timeout) else timeout
    return seconds if isinstance(seconds, int | float) else None


def _judge(exc: Exception) -> Verdict:
    """What an error of the client tells of the provider."""
    if isinstance(exc, openai.APIStatusError):
        headers = exc.response.headers
        passing = is_passing(exc) and headers.get("x-should-retry") != "false"
        return verdict_on_status(exc.status_code, retry_after(headers), passing=passing)
    if isinstance(exc, openai.APIConnectionError):
        return NO_ANSWER
    if isinstance(exc, BrokenAnswerError):
        return _BROKEN
    return WORKS if isinstance(exc, openai.OpenAIError) else NOTHING


def parse_completion(answer: object, ref: ModelRef) -> ModelReply:
    """Read a chat completion.

    Raises:
        ModelProtocolError: it is not of the API's form; says what is wrong with it.
    """
    try:
        reply = read_completion(cast("Mapping[str, Any]", answer), ref)
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError) as exc:
        raise not_the_protocol(ref.name, f"{type(exc).__name__} while reading it") from exc
    return reply
