"""Logs."""

import io
import json
import logging
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis
import stamina
import structlog
from kombu.exceptions import OperationalError
from stamina.instrumentation import set_on_retry_hooks

from clasper_worker.config.settings import Settings
from clasper_worker.errors import BackendUnavailableError
from clasper_worker.observability.logs import configure_logging, leave_out_ticks


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(capture=False)
    structlog.reset_defaults()
    set_on_retry_hooks(None)


def lines(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, level: int | None = None
) -> list[str]:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging(settings, level=level)
    with structlog.contextvars.bound_contextvars(turn_id="t1"):
        structlog.get_logger("ours").info("turn.completed", tool_calls=2)
        logging.getLogger("theirs").warning("plain %s", "line")
        logging.getLogger("httpx2").info("GET http://secret")
    return output.getvalue().splitlines()


def test_json_lines_carry_the_event_its_fields_and_the_turn(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    ours, theirs = map(json.loads, lines(monkeypatch, settings_of(clasper_log_format="json")))
    assert (ours["event"], ours["tool_calls"], ours["turn_id"]) == ("turn.completed", 2, "t1")
    assert (theirs["event"], theirs["level"]) == ("plain line", "warning")


def test_console_lines_are_for_people(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    ours, _ = lines(monkeypatch, settings_of(clasper_log_format="console"))
    assert "turn.completed" in ours
    assert not ours.startswith("{")


def test_a_given_level_wins_over_the_setting(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    assert len(lines(monkeypatch, settings_of(), level=logging.WARNING)) == 1


def test_a_traceback_in_the_console_shows_no_local_variable(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging(settings_of(clasper_log_format="console"))
    words = secrets.token_hex(8)

    def fail_on(_: str) -> None:
        raise KeyError

    try:
        fail_on(words)
    except KeyError:
        structlog.get_logger("ours").exception("it.failed")
    assert "KeyError" in output.getvalue()
    assert words not in output.getvalue()


def test_ticks_that_go_well_are_not_told_and_those_that_fail_are(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging(settings_of())
    leave_out_ticks(["clasper.dispatch"])
    trace, beat = logging.getLogger("celery.app.trace"), logging.getLogger("celery.beat")
    trace.info("Task %(name)s[%(id)s] succeeded", {"name": "clasper.dispatch", "id": "1"})
    beat.info("Scheduler: Sending due task %s (%s)", "dispatch", "clasper.dispatch")
    assert output.getvalue() == ""
    trace.info("Task %(name)s[%(id)s] succeeded", {"name": "clasper.send", "id": "1"})
    trace.error("Task %(name)s[%(id)s] raised", {"name": "clasper.dispatch", "id": "1"})
    assert len(output.getvalue().splitlines()) == 2
    configure_logging(settings_of(), level="DEBUG")
    beat.info("Scheduler: Sending due task %s (%s)", "dispatch", "clasper.dispatch")
    assert len(output.getvalue().splitlines()) == 3


class _TryAgain(Exception):  # noqa: N818 - a signal, as the transport has one
    error = BackendUnavailableError("The backend answered 503 to GET /x")


def retried(monkeypatch: pytest.MonkeyPatch, settings: Settings, failure: Exception) -> str:
    """What is logged of a retry."""
    output = io.StringIO()
    monkeypatch.setattr("sys.stderr", output)
    configure_logging(settings)
    for attempt in stamina.retry_context(on=Exception, wait_initial=0, wait_jitter=0):
        with attempt:
            if attempt.num == 1:
                raise failure
    (line,) = output.getvalue().splitlines()
    return line


def test_a_retry_is_told_without_what_the_error_quotes(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    failure = ValueError("the provider answered: A secret word")
    line = retried(monkeypatch, settings_of(clasper_log_format="json"), failure)
    told = json.loads(line)
    assert (told["event"], told["error"], told["number"]) == ("retry.scheduled", "ValueError", 1)
    assert "secret" not in line


def test_a_retry_tells_our_own_error_by_its_code_and_what_it_says(
    monkeypatch: pytest.MonkeyPatch, settings_of: Callable[..., Settings]
) -> None:
    told = json.loads(retried(monkeypatch, settings_of(clasper_log_format="json"), _TryAgain()))
    assert told["error"] == "backend_unavailable"
    assert told["reason"] == "The backend answered 503 to GET /x"


@pytest.mark.parametrize(
    "gone",
    [
        redis.ConnectionError("redis://:hunter2@r"),
        redis.TimeoutError(),
        OperationalError(),
        ConnectionResetError(),
    ],
)
def test_a_server_that_went_away_is_one_line_and_no_traceback(
    capsys: pytest.CaptureFixture[str], settings_of: Callable[..., Settings], gone: Exception
) -> None:
    configure_logging(settings_of(clasper_log_format="json"))
    log = logging.getLogger("celery.worker.consumer.consumer")
    log.warning("Connection lost", exc_info=gone)
    (line,) = capsys.readouterr().err.splitlines()
    told = json.loads(line)
    assert told["event"] == f"Connection lost ({type(gone).__name__})"
    assert "exception" not in told
    assert "hunter2" not in line


def test_what_nobody_caught_is_a_line_of_json_without_its_text(tmp_path: Path) -> None:
    """A dying thread, an ignored error, a warning, and the end of the process."""
    program = """
import threading, warnings
from clasper_worker.config.settings import load_settings
from clasper_worker.observability.logs import configure_logging
configure_logging(load_settings(clasper_log_format="json"))
def die(): raise ValueError("a secret word")
thread = threading.Thread(target=die, name="keeper"); thread.start(); thread.join()
class Bad:
    def __del__(self): die()
Bad()
warnings.warn("old", DeprecationWarning)
die()
"""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    told = [json.loads(line) for line in done.stderr.splitlines()]
    events = [line["event"] for line in told if line.get("logger") != "py.warnings"]
    assert events == ["thread.died", "error.ignored", "process.died"]
    assert any("old" in line["event"] for line in told)
    assert told[0]["thread"] == "keeper"
    assert all(line["error"] == "ValueError" for line in told if "error" in line)
    assert "a secret word" not in done.stderr
    assert done.returncode == 1
