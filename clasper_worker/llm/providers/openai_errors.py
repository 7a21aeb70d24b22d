"""What the ``openai`` client's errors mean: ours, which say what to change."""

from __future__ import annotations

import httpx2
import openai

from clasper_worker.engine.http.redirects import is_redirect, told
from clasper_worker.errors import (
    ContextLengthError,
    ModelAuthError,
    ModelError,
    ModelNotFoundError,
    ModelProtocolError,
    ModelRejectedError,
    ModelUnavailableError,
)
from clasper_worker.llm.refusal import read_refusal
from clasper_worker.llm.response_body import EmbeddedError

_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})


def is_passing(exc: openai.APIStatusError) -> bool:
    """Whether trying again may help."""
    if exc.status_code == 429 and exc.code == "insufficient_quota":
        return False
    if exc.status_code == 501:  # it does not know how to
        return False
    return exc.status_code in _TRANSIENT_STATUSES or exc.status_code >= 500


def not_the_protocol(model: str, problem: str) -> ModelProtocolError:
    """The error of an answer that is none."""
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
        describe = _redirected if is_redirect(exc.status_code) else _status_error
        return describe(exc, model)
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
        return not_the_protocol(model, "it does not have the API's form")
    return ModelError(
        f"The model {model!r} could not be asked: {type(exc).__name__}", {"model": model}
    )


def _redirected(exc: openai.APIStatusError, model: str) -> ModelError:
    url, location = str(exc.request.url), exc.response.headers.get("location")
    return ModelRejectedError(
        f"The provider of {model!r} {told('POST', url, exc.status_code, location)}: set"
        " OPENAI_BASE_URL to the address where it answers itself",
        {
            "model": model,
            "status": exc.status_code,
            "provider_code": exc.code,
            "variable": "OPENAI_BASE_URL",
        },
    )


def _status_error(exc: openai.APIStatusError, model: str) -> ModelError:
    status = exc.status_code
    refusal = read_refusal(status, exc.body)
    inside = isinstance(exc.__cause__, EmbeddedError)
    where = f"{'error' if inside else 'HTTP'} {status}{' inside HTTP 200' if inside else ''}"
    named = ", ".join(filter(None, (where, refusal.code, refusal.parameter)))
    details = {"model": model, "status": status, "provider_code": refusal.code}
    if refusal.parameter:
        details["parameter"] = refusal.parameter
    if status < 500 and refusal.is_too_long:
        limit = f", which is {refusal.limit:,} tokens" if refusal.limit else ""
        return ContextLengthError(
            f"The conversation is longer than the model {model!r} takes ({named}): set"
            f" CLASPER_CONTEXT_WINDOW_TOKENS to what it takes{limit}, or have the conversation"
            " compacted",
            {
                **details,
                "limit": refusal.limit,
                "requested": refusal.requested,
                "variable": "CLASPER_CONTEXT_WINDOW_TOKENS",
            },
        )
    if status != 401 and status < 500 and refusal.is_unknown_model:
        return ModelNotFoundError(
            f"The provider has no model {model!r}, or not for this key ({named}): check"
            " LLM_MODEL_DEFAULT (or _CHEAP, _BEST, _FALLBACK, whichever names it) and"
            " OPENAI_BASE_URL",
            details,
        )
    if status in {401, 403}:
        return ModelAuthError(
            f"The provider refused the key for {model!r} ({where}): check OPENAI_API_KEY", details
        )
    if status == 429 and exc.code == "insufficient_quota":
        return ModelRejectedError(
            f"The provider's quota for {model!r} is used up ({where}): check its billing", details
        )
    if is_passing(exc):
        what = "limits its rate" if status == 429 else "is not available"
        return ModelUnavailableError(
            f"The model {model!r} {what} ({named}), after retries", details
        )
    return ModelRejectedError(f"The provider refused the request for {model!r} ({named})", details)
