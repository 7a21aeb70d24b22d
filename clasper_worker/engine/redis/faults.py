"""What an error of Redis means for whoever called: wait, connect anew, or tell who has to act.

The one place that knows Redis' error codes, and what redis-py, kombu and Celery make of them.

=========  ==============================================================  ======================
kind       examples                                                        what to do
=========  ==============================================================  ======================
REFUSED    READONLY, OOM, BUSY, LOADING, MISCONF, NOREPLICAS, MASTERDOWN   the same call again
LOST       no answer, a closed connection, too many clients                again, connected anew
DENIED     NOPERM, NOAUTH, WRONGPASS                                       tell the operator
FAULT      an unknown command, a key of another type                       tell us
=========  ==============================================================  ======================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum

from celery.exceptions import BackendError
from kombu.exceptions import OperationalError
from redis import exceptions as redis

from clasper_worker.errors import StateRefusedError, StateUnavailableError


class RedisFault(Enum):
    """The kinds of errors."""

    REFUSED = "refused"
    """Redis answered that it does not take the call now; nothing of it was done."""
    LOST = "lost"
    """There was no answer; the call may have been carried out or not."""
    DENIED = "denied"
    """The user that we log in as may not do this."""
    FAULT = "fault"
    """A call that Redis will never take."""

    @property
    def passes(self) -> bool:
        """Whether it ends by itself, so that the call is to be made again."""
        return self in {RedisFault.REFUSED, RedisFault.LOST}


_REFUSED = frozenset(
    {
        "BUSY",
        "CLUSTERDOWN",
        "FAILOVER",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "NOREPLICAS",
        "NOSCRIPT",  # it was restarted: whoever calls again sends the script
        "NOTREADY",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "UNBLOCKED",  # a wait for a message, as the server became a replica
    }
)
_DENIED = frozenset({"DENIED", "NOAUTH", "NOPERM", "WRONGPASS"})
_OF_CLASSES: tuple[tuple[type[Exception], str], ...] = (
    (redis.NoScriptError, "NOSCRIPT"),
    (redis.OutOfMemoryError, "OOM"),
    (redis.ReadOnlyError, "READONLY"),
    (redis.NoPermissionError, "NOPERM"),
    (redis.BusyLoadingError, "LOADING"),
    (redis.AuthenticationError, "NOAUTH"),
    (redis.AuthorizationError, "NOPERM"),
    (redis.TryAgainError, "TRYAGAIN"),
    (redis.MasterDownError, "MASTERDOWN"),
    (redis.ClusterDownError, "CLUSTERDOWN"),
)
# Until Redis 7 a script's error, and a transaction's still, has the reason within its text.
_WITHIN = re.compile(r"(?:: |-)(?P<code>[A-Z]{3,12}) ")
_TEXT_READ = 500
_PHRASES = (
    ("script killed by user", "BUSY"),  # by an administrator: Redis goes on
    ("max number of clients reached", ""),
    ("can't write against a read only", "READONLY"),
    ("has no permissions", "NOPERM"),
    ("can't run this command", "NOPERM"),
)
_GAVE_UP = "Retry limit exceeded while trying to reconnect to the Celery"
_COMMAND = re.compile(r"the '(?P<name>[A-Za-z0-9_|.-]{1,40})' command")
_LOST = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.InvalidResponse,
    OSError,  # a TimeoutError is one
    OperationalError,
)


def redis_fault(exc: BaseException) -> RedisFault | None:
    """What kind of error of Redis this is; None of one that has nothing to do with Redis.

    Errors in which kombu and Celery wrap another are judged by that.
    """
    if isinstance(exc, StateUnavailableError):
        return _of_ours(exc)
    if isinstance(exc, OperationalError | BackendError) and exc.__cause__ is not None:
        return redis_fault(exc.__cause__) or RedisFault.LOST
    code = _code(exc)
    if code in _REFUSED:
        return RedisFault.REFUSED
    if code in _DENIED:
        return RedisFault.DENIED
    # Celery's result backend, tired of trying, raises the latter.
    if isinstance(exc, _LOST) or code == "" or _GAVE_UP in str(exc)[:_TEXT_READ]:
        return RedisFault.LOST
    return RedisFault.FAULT if isinstance(exc, redis.RedisError | BackendError) else None


def _of_ours(exc: StateUnavailableError) -> RedisFault:
    if not isinstance(exc, StateRefusedError):
        return RedisFault.LOST
    return RedisFault.DENIED if exc.details.get("denied") else RedisFault.FAULT


def refusal_of(exc: BaseException) -> str:
    """Redis' word for an error, such as ``READONLY``; else the error's class."""
    return _code(exc) or type(exc).__name__


def is_read_only(exc: BaseException) -> bool:
    """Whether the server is a replica now: its name may lead to another one, connected anew."""
    return _code(exc) == "READONLY"


def typed_error(exc: BaseException, where: str = "CLASPER_REDIS_URL") -> StateUnavailableError:
    """The error of ours to raise instead, without Redis' text, which may quote our arguments.

    Args:
        exc: what Redis, redis-py, kombu or Celery raised.
        where: the variable, or variables, that name the Redis.
    """
    if isinstance(exc, StateUnavailableError):
        return exc
    kind, problem = redis_fault(exc), refusal_of(exc)
    details = {"problem": problem}
    if kind is RedisFault.REFUSED:
        return StateUnavailableError(
            f"Redis refused a call of ours ({problem}): look at its memory, its disk and its role",
            details,
        )
    if kind is RedisFault.DENIED:
        command = _command(exc)
        named = f" the command {command.upper()}" if command else " a command of ours"
        return StateRefusedError(
            f"Redis does not let us run{named} ({problem}): check the user, the password and the"
            f" rights in {where}",
            {**details, "denied": True, **({"command": command} if command else {})},
        )
    if kind is RedisFault.FAULT:
        command = _command(exc)
        named = f" ({command})" if command else ""
        return StateRefusedError(
            f"Redis cannot carry out a call of ours{named}: {problem}. Is {where} a Redis of"
            " version 6.2 or later, whose keys nobody else uses?",
            {**details, **({"command": command} if command else {})},
        )
    return StateUnavailableError(f"Redis did not answer ({problem}): check {where}", details)


@contextmanager
def typed_redis_errors(where: str) -> Iterator[None]:
    """Let no error of Redis out of the block but as one of ours.

    Args:
        where: see `typed_error`.

    Raises:
        StateUnavailableError: Redis did not answer, or refused.
        StateRefusedError: it never will take the call.
    """
    try:
        yield
    except StateUnavailableError:
        raise
    except Exception as exc:
        if redis_fault(exc) is None:
            raise
        raise typed_error(exc, where) from exc


def _code(exc: BaseException) -> str | None:
    """Redis' error code; None where there is none, empty for a refused connection."""
    for kind, code in _OF_CLASSES:
        if isinstance(exc, kind):
            return code
    if not isinstance(exc, redis.RedisError):
        return None
    text = str(exc)[:_TEXT_READ]
    first = text.partition(" ")[0].removeprefix("-")
    if first in _REFUSED or first in _DENIED:
        return first
    for found in _WITHIN.finditer(text):
        if found["code"] in _REFUSED or found["code"] in _DENIED:
            return found["code"]
    lower = text.lower()
    return next((code for phrase, code in _PHRASES if phrase in lower), None)


def _command(exc: BaseException) -> str:
    """The command that an error names, in lower case; empty where it names none."""
    seen: BaseException | None = exc
    while seen is not None:
        found = _COMMAND.search(str(seen)[:_TEXT_READ])
        if found:
            return found["name"].lower()
        seen = seen.__cause__
    return ""
