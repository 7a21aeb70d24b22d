"""Every error that Clasper Worker raises, by who has to act on it.

::

    ClasperError
    ├─ InvalidRequestError        the caller: a send request that cannot be run
    ├─ ConfigurationError         the operator: a setting is missing or contradicts another
    │  └─ WorkspaceError          … a workspace that is not there
    ├─ BackendError               Mission Control
    │  ├─ BackendUnavailableError     no answer, 5xx or 429 after retries (transient)
    │  ├─ BackendAuthError            401: the agent token or internal token was refused
    │  ├─ BackendConflictError        409: the idempotency key was used by another request
    │  ├─ BackendNotFoundError        404
    │  ├─ BackendRejectedError        any other 4xx
    │  ├─ BackendProtocolError        an answer that is not the contract's
    │  └─ BackendMovedError           a redirect that is not followed: BACKEND_URL is wrong
    ├─ ModelError                 the language model
    │  ├─ ModelUnavailableError       no answer, 5xx or 429 after retries (transient)
    │  ├─ ModelAuthError              401/403: the provider refused the key
    │  ├─ ModelRejectedError          any other 4xx: it will not take this request
    │  │  ├─ ModelNotFoundError           … the provider has no such model
    │  │  └─ ContextLengthError           … the conversation is longer than the model takes
    │  ├─ ModelProtocolError          an answer that is not the provider's protocol
    │  ├─ EmptyReplyError             an answer without text and without tool calls
    │  └─ InvalidOutputError          output that does not fit the caller's schema, twice
    ├─ ToolError                  one tool call, reported to the model so that it can fix it
    ├─ TurnError                  the turn itself
    │  ├─ ToolLoopError               the model repeats itself or never finishes
    │  ├─ TurnConflictError           the turn's key was used with another request
    │  ├─ TurnTimeoutError            CLASPER_TURN_SOFT_LIMIT_SEC passed
    │  ├─ LeaseLostError              another run has taken the turn over; this one posts nothing
    │  ├─ TurnCancelledError          it was cancelled; this run posts nothing
    │  ├─ SessionBusyError            its session was busy, and it asked to be rejected then
    │  ├─ LaneFullError               too many turns of its session wait (CLASPER_LANE_DEPTH)
    │  ├─ DeadLetterError             it was buried: its message, or its worker each time
    │  ├─ WorkerLostError             its process was killed each time, and no dead letter is kept
    │  ├─ MessageRefusedError         its message is none that can be run, on another broker
    │  └─ UnexpectedError             a fault of ours; its text is kept out of results
    ├─ WebhookError               whoever is to receive a webhook
    │  ├─ WebhookRefusedError         we will not send it there: an address that is not public
    │  ├─ WebhookUnavailableError     no answer, 408, 425, 429 or 5xx (transient)
    │  └─ WebhookRejectedError        any other answer that is not 2xx
    ├─ StateUnavailableError      Redis: no answer, or a refusal that passes (transient)
    │  └─ StateRefusedError           … it never will: a missing right, or a fault of ours
    └─ StackError                 the processes of `clasper up` could not be started

Errors cross the result backend as JSON: ``args`` are the message and a flat ``details`` mapping,
so that a caller who imports these classes gets them back whole, and one who does not still gets
a class of the same name. Messages never hold secrets or people's text, and are cut where they are
long, as details are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from clasper_worker.text.bounds import bounded, shortened


class ClasperError(Exception):
    """Base of every error here.

    Args:
        message: what went wrong and how to fix it, for a person; no secrets, no people's text.
        details: the same for programs, JSON types only.

    Attributes:
        code: a stable name for programs, as in the shim's ``{"error", "code", "details"}``.
        transient: whether the same request may succeed later, unchanged.
    """

    code: ClassVar[str] = "error"
    transient: ClassVar[bool] = False

    def __init__(self, message: str, details: Mapping[str, Any] | None = None) -> None:
        self.message = shortened(message)
        self.details: dict[str, Any] = bounded(details or {})
        super().__init__(self.message, self.details)

    def __str__(self) -> str:
        return self.message


class InvalidRequestError(ClasperError):
    """A send request that cannot be run; ``details["fields"]`` lists `{field, problem, fix}`."""

    code = "invalid_request"


class ConfigurationError(ClasperError):
    """A setting is missing or contradicts another; ``details["variable"]`` names it."""

    code = "configuration"


class WorkspaceError(ConfigurationError):
    """The workspace folder is missing or cannot be read."""

    code = "workspace"


class BackendError(ClasperError):
    """Mission Control did not do what was asked; ``details`` has ``endpoint`` and ``status``."""

    code = "backend"


class BackendUnavailableError(BackendError):
    """No answer, 5xx or 429, and retries did not help."""

    code = "backend_unavailable"
    transient = True


class BackendAuthError(BackendError):
    """401: the backend refused our token. AGENT_JWT_SECRET or INTERNAL_API_TOKEN differs."""

    code = "backend_auth"


class BackendConflictError(BackendError):
    """409: the idempotency key was used before with a different request."""

    code = "backend_conflict"


class BackendNotFoundError(BackendError):
    """404: no such thing for this user, or no such endpoint."""

    code = "backend_not_found"


class BackendRejectedError(BackendError):
    """A 4xx that is none of the others: the backend will not take this request."""

    code = "backend_rejected"


class BackendProtocolError(BackendError):
    """An answer whose body is not what the contract says."""

    code = "backend_protocol"


class BackendMovedError(BackendError):
    """A redirect to another origin, or one that would change the method: it is not followed."""

    code = "backend_moved"


class ModelError(ClasperError):
    """The language model did not answer; ``details`` has ``model`` and, where known, ``status``."""

    code = "model"


class ModelUnavailableError(ModelError):
    """No answer, 5xx or 429, and retries did not help."""

    code = "model_unavailable"
    transient = True


class ModelAuthError(ModelError):
    """The provider refused the key."""

    code = "model_auth"


class ModelRejectedError(ModelError):
    """The provider will not take this request (a 4xx that is not about auth or rate)."""

    code = "model_rejected"


class ModelNotFoundError(ModelRejectedError):
    """The provider has no model of this name, or not for this key."""

    code = "model_not_found"


class ContextLengthError(ModelRejectedError):
    """The conversation is longer than the model takes.

    ``details`` has ``limit`` and ``requested``, in tokens, where the provider named them.
    """

    code = "context_length_exceeded"


class ModelProtocolError(ModelError):
    """An answer that is not what the provider's API describes."""

    code = "model_protocol"


class EmptyReplyError(ModelError):
    """The model answered with neither text nor tool calls: there is nothing to post."""

    code = "empty_reply"


class InvalidOutputError(ModelError):
    """The model's output does not fit the schema, also when it was asked again."""

    code = "invalid_output"


class ToolError(ClasperError):
    """One tool call failed in a way that the model can fix; reported to it, not to the caller."""

    code = "tool"


class TurnError(ClasperError):
    """The turn could not be brought to an end."""

    code = "turn"


class ToolLoopError(TurnError):
    """The model repeats the same call or never comes to an answer."""

    code = "tool_loop"


class TurnConflictError(TurnError):
    """The turn was asked for before, under the same key, with a different request."""

    code = "turn_conflict"


class TurnTimeoutError(TurnError):
    """The turn took longer than CLASPER_TURN_SOFT_LIMIT_SEC."""

    code = "turn_timeout"


class LeaseLostError(TurnError):
    """Another run has taken the turn over: this one posts nothing more, and its end is void."""

    code = "lease_lost"


class TurnCancelledError(TurnError):
    """It was cancelled while it was queued or ran: this run posts nothing more."""

    code = "cancelled"


class SessionBusyError(TurnError):
    """The session was busy, and the request said ``busy: reject``."""

    code = "session_busy"
    transient = True


class LaneFullError(TurnError):
    """More turns of the session wait than ``CLASPER_LANE_DEPTH`` allows."""

    code = "lane_full"
    transient = True


class DeadLetterError(TurnError):
    """The message was put with the dead letters instead of being run (again)."""

    code = "dead_letter"


class WorkerLostError(TurnError):
    """The process that ran the task was killed each time, under a broker without dead letters."""

    code = "worker_lost"


class MessageRefusedError(TurnError):
    """The message cannot be run, and the broker, which is not Redis, keeps no dead letters."""

    code = "message_refused"


class UnexpectedError(TurnError):
    """A fault of ours: names the exception and the place, not its text, which may be private."""

    code = "unexpected"


class WebhookError(ClasperError):
    """A webhook was not delivered; ``details`` has ``host`` and, where answered, ``status``."""

    code = "webhook"


class WebhookRefusedError(WebhookError):
    """We do not send it: the host has an address that webhooks may not go to."""

    code = "webhook_refused"


class WebhookUnavailableError(WebhookError):
    """No answer, or one that asks to try again: 408, 425, 429, 5xx."""

    code = "webhook_unavailable"
    transient = True


class WebhookRejectedError(WebhookError):
    """The receiver answered with neither success nor anything that another attempt would fix."""

    code = "webhook_rejected"


class StateUnavailableError(ClasperError):
    """Redis, which holds queues, results and other short-lived state, did not answer or refused.

    ``details["problem"]`` says how, such as ``READONLY``, ``OOM`` or ``TimeoutError``.
    """

    code = "state_unavailable"
    transient = True


class StateRefusedError(StateUnavailableError):
    """Redis will never take the call: a right is missing, or it is a fault of ours.

    ``details["command"]`` names the command where Redis does.
    """

    code = "state_refused"
    transient = False


class StackError(ClasperError):
    """A process of the local stack (`clasper up`) could not be started."""

    code = "stack"
