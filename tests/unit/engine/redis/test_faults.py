"""What errors of Redis mean: each of them is of one kind, and none reaches a caller untyped."""

import pytest
import redis
from celery.exceptions import BackendStoreError
from kombu.exceptions import OperationalError
from redis._parsers.base import BaseParser

from clasper_worker.engine.redis.faults import (
    RedisFault,
    is_read_only,
    redis_fault,
    refusal_of,
    typed_error,
    typed_redis_errors,
)
from clasper_worker.errors import StateRefusedError, StateUnavailableError

SCRIPT = "ERR Error running script (call to f_1): @user_script:12: @user_script: 12: -"

REFUSED = {
    "READONLY": "READONLY You can't write against a read only replica.",
    "BUSY": "BUSY Redis is busy running a script..",
    "OOM": "OOM command not allowed when used memory > 'maxmemory'.",
    "NOREPLICAS": "NOREPLICAS Not enough good replicas to write.",
    "LOADING": "LOADING Redis is loading the dataset in memory",
    "MASTERDOWN": "MASTERDOWN Link with MASTER is down.",
    "CLUSTERDOWN": "CLUSTERDOWN The cluster is down",
    "NOSCRIPT": "NOSCRIPT No matching script. Please use EVAL.",
    "MISCONF": "MISCONF Redis is configured to save RDB snapshots, but cannot persist on disk.",
    "TRYAGAIN": "TRYAGAIN Multiple keys request during rehashing of slot",
    "UNBLOCKED": "UNBLOCKED force unblock from blocking operation, instance state changed",
}
DENIED = [
    "NOPERM this user has no permissions to run the 'eval' command or its subcommand",
    "NOPERM User worker has no permissions to run the 'evalsha' command",
    "NOAUTH Authentication required.",
    "WRONGPASS invalid username-password pair or user is disabled.",
    f"{SCRIPT}NOPERM this user has no permissions to run the 'zadd' command",
]
FAULTS = [
    "ERR unknown command 'BLMOVE'",
    "WRONGTYPE Operation against a key holding the wrong kind of value",
    "BUSYGROUP Consumer Group name already exists",
    "ERR value is not an integer or out of range",
]


def answer(text: str) -> Exception:
    """The error that redis-py makes of an answer."""
    error: Exception = BaseParser.parse_error(text)  # type: ignore[no-untyped-call]
    return error


@pytest.mark.parametrize("code", REFUSED)
def test_a_refusal_is_to_be_waited_for(code: str) -> None:
    error = answer(REFUSED[code])
    assert (redis_fault(error), refusal_of(error)) == (RedisFault.REFUSED, code)
    typed = typed_error(error)
    assert type(typed) is StateUnavailableError
    assert typed.transient
    assert typed.details["problem"] == code


@pytest.mark.parametrize("code", ["READONLY", "OOM", "NOREPLICAS", "MISCONF"])
def test_a_refusal_within_a_script_is_known_as_redis_6_tells_it(code: str) -> None:
    error = answer(SCRIPT + REFUSED[code])
    assert (redis_fault(error), refusal_of(error)) == (RedisFault.REFUSED, code)
    assert is_read_only(error) == (code == "READONLY")


@pytest.mark.parametrize("text", DENIED)
def test_a_missing_right_is_an_operators_matter(text: str) -> None:
    error = answer(text)
    assert redis_fault(error) is RedisFault.DENIED
    typed = typed_error(error, "CELERY_BROKER_URL")
    assert isinstance(typed, StateRefusedError)
    assert not typed.transient
    assert "CELERY_BROKER_URL" in str(typed)


@pytest.mark.parametrize(
    ("text", "command"), [(DENIED[0], "eval"), (DENIED[1], "evalsha"), (DENIED[4], "zadd")]
)
def test_a_missing_right_names_the_command(text: str, command: str) -> None:
    typed = typed_error(answer(text))
    assert typed.details["command"] == command
    assert command.upper() in str(typed)


@pytest.mark.parametrize("text", FAULTS)
def test_what_redis_never_takes_is_no_refusal_that_passes(text: str) -> None:
    error = answer(text)
    assert redis_fault(error) is RedisFault.FAULT
    assert isinstance(typed_error(error), StateRefusedError)


@pytest.mark.parametrize(
    "error",
    [
        redis.ConnectionError("closed"),
        redis.TimeoutError("silent"),
        redis.InvalidResponse("garbage"),
        answer("ERR max number of clients reached"),
        ConnectionResetError(),
        TimeoutError(),
        OperationalError("gone"),
        RuntimeError(
            "\nRetry limit exceeded while trying to reconnect to the Celery result store\nbackend."
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_got_no_answer_is_to_be_made_again_connected_anew(error: Exception) -> None:
    assert redis_fault(error) is RedisFault.LOST
    assert type(typed_error(error)) is StateUnavailableError


@pytest.mark.parametrize("wrapper", [OperationalError("x"), BackendStoreError("x")])
def test_what_kombu_and_celery_wrap_is_judged_by_what_it_wraps(wrapper: Exception) -> None:
    wrapper.__cause__ = answer(REFUSED["OOM"])
    assert redis_fault(wrapper) is RedisFault.REFUSED


@pytest.mark.parametrize("error", [ValueError("x"), RuntimeError("x"), KeyError("x")])
def test_other_errors_are_none_of_redis(error: Exception) -> None:
    assert redis_fault(error) is None
    with pytest.raises(type(error)), typed_redis_errors("CLASPER_REDIS_URL"):
        raise error


@pytest.mark.parametrize("text", [*REFUSED.values(), *DENIED, *FAULTS])
def test_no_answer_of_redis_leaves_untyped(text: str) -> None:
    with pytest.raises(StateUnavailableError) as caught, typed_redis_errors("CLASPER_REDIS_URL"):
        raise answer(text)
    assert "user_script" not in str(caught.value)
