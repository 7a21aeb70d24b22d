"""A worker or Redis ends while a turn is followed."""

from __future__ import annotations

import signal
from typing import Any

import pytest

from tests.integration.turn.http_listener import (
    HttpListener,
    a_request,
    assert_right,
    in_background,
    joined,
)
from tests.waiting import until

pytestmark = pytest.mark.integration


def test_a_redis_that_restarts_in_mid_stream_leaves_the_right_text(
    processes: Any, slow_speech: dict[str, str], shims: list[str]
) -> None:
    listener, request = HttpListener(shims), a_request()
    with processes.worker("steady", **slow_speech):
        thread = in_background(lambda: (listener.ask(request), listener.to_the_end()))
        until(lambda: listener.types.count("chunk") > 3)
        processes.server.restart()
        joined(thread)
    assert_right(listener)
    assert processes.posted(request["user_id"]) == [listener.last["response"]]


def test_a_worker_killed_in_mid_stream_leaves_the_right_text(
    processes: Any, slow_speech: dict[str, str], shims: list[str]
) -> None:
    lease = {"CLASPER_VISIBILITY_TIMEOUT_SEC": "2"}
    listener, request = HttpListener(shims), a_request()
    command = ("celery", "-A", "clasper_worker", "worker", "-n", "mortal@test")
    with processes.running("mortal", *command, **slow_speech, **lease) as mortal:
        thread = in_background(listener.ask, request)
        until(lambda: listener.types.count("chunk") > 3, log=processes.logs["mortal"])
        mortal.send_signal(signal.SIGKILL)
        with processes.worker("successor", **slow_speech, **lease):
            joined(thread)
    assert_right(listener)
    assert listener.types.count("retry") == 1
    assert listener.types.count("start") == 2
    assert processes.posted(request["user_id"]) == [listener.last["response"]]
