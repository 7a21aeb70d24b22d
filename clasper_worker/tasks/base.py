"""What all tasks have in common."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any

import structlog
from celery.exceptions import Ignore, Reject, Retry
from celery.result import AsyncResult

from clasper_worker.config.settings import get_settings
from clasper_worker.engine.pool.task import CoroutineTask
from clasper_worker.engine.queue.delivery import TurnDelivery
from clasper_worker.engine.queue.scheduler import SCHEDULED
from clasper_worker.errors import ClasperError, TurnCancelledError, UnexpectedError
from clasper_worker.observability.redaction import redacted
from clasper_worker.tasks.cancelled import end_revoked, fence_of
from clasper_worker.turn.models import TurnIdentity

log = structlog.get_logger(__name__)


class ClasperTask(CoroutineTask):
    """What our tasks have in common: redacted arguments, and errors of ours as expected ends."""

    abstract = True
    Request = "clasper_worker.engine.pool.request:RedactedRequest"
    throws = (ClasperError,)
    reject_on_worker_lost = True  # a child of prefork was killed: the task runs again

    def coroutine(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """The body; where the broker knows nothing of it, not begun of a job that is cancelled."""
        if get_settings().celery_broker_url.startswith(SCHEDULED):
            return super().coroutine(*args, **kwargs)
        return self._unless_cancelled(args, kwargs)

    async def _unless_cancelled(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        request = self.request
        if request.called_directly:
            return await super().coroutine(*args, **kwargs)
        try:
            fence = await fence_of(TurnDelivery.of(request), self.name, request.id, kwargs)
            await fence.confirm()
            return await super().coroutine(*args, **kwargs)
        except TurnCancelledError:
            await end_revoked(self.app, self.name, request, kwargs)
        raise Ignore("it was cancelled")

    def apply_async(
        self, args: Any = None, kwargs: Any = None, *rest: Any, **options: Any
    ) -> AsyncResult:
        """As Celery's, for a retry too; the sender's own events show the arguments redacted."""
        options.setdefault("argsrepr", f"({len(args)} positional)" if args else "()")
        options.setdefault("kwargsrepr", redacted(kwargs or {}))
        return super().apply_async(args, kwargs, *rest, **options)


def turn_log_context(
    turn: TurnIdentity, user_id: str, role: str, session: str | None = None
) -> dict[str, str]:
    """What every log line of a turn says; ``session`` is its key, where it has one of its own."""
    return {
        "turn_id": turn.turn_id,
        "job_id": turn.job_id,
        "trace_id": turn.trace_id,
        "user_id": user_id,
        "role": role,
        "session": session or f"user:{user_id}:{role}",
    }


@asynccontextmanager
async def typed_errors(
    what: str, told: Callable[[], Mapping[str, Any]] = dict
) -> AsyncIterator[None]:
    """Let errors of ours out without their causes, and any other as an `UnexpectedError`.

    Celery stores and shows an exception with its causes, and those may quote what was said: a
    provider's answer that repeats the prompt, a value in a KeyError.

    Args:
        what: of which the log tells that it failed or was cancelled.
        told: gives further fields of that line.
    """
    expected, unexpected = f"{what}.failed", f"{what}.unexpected_error"
    cancelled = f"{what}.cancelled"
    try:
        yield
    except TurnCancelledError:
        log.warning(cancelled, **told())
        raise
    except ClasperError as exc:
        log.warning(expected, error=exc.code, reason=str(exc), **told())
        raise exc.with_traceback(None) from None
    except (Retry, Ignore, Reject):
        raise
    except asyncio.CancelledError:  # by a person, a newer message, a hard limit or a shutdown
        log.warning(cancelled, **told())
        raise
    except Exception as exc:  # noqa: BLE001 - a fault must not carry private text out
        frames = traceback.extract_tb(exc.__traceback__)
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        log.error(unexpected, error=type(exc).__name__, places=places[-8:], **told())  # noqa: TRY400 - its text may be private
        raise UnexpectedError(
            f"Unexpected {type(exc).__name__}: a fault in the worker; its log names the place",
            {"error": type(exc).__name__},
        ) from None
