"""Real processes with settings that contradict each other: they end, and say why."""

import secrets
from typing import Any

import pytest
import redis

from tests.waiting import until

pytestmark = pytest.mark.integration

LIMITS = {"CLASPER_TURN_SOFT_LIMIT_SEC": "700", "CLASPER_TURN_HARD_LIMIT_SEC": "650"}


@pytest.mark.parametrize(
    "command",
    [
        ("celery", "-A", "clasper_worker", "worker", "-Q", "{queue}"),
        ("clasper_worker", "worker", "--processes", "2", "-Q", "{queue}"),
        ("celery", "-A", "beat_schedule", "beat"),
        ("clasper_worker", "beat"),
        ("clasper_worker", "serve", "--port", "0"),
    ],
    ids=["celery worker", "clasper worker", "celery beat", "clasper beat", "clasper serve"],
)
def test_a_process_ends_with_the_reason_before_it_takes_any_message(
    processes: Any, command: tuple[str, ...]
) -> None:
    queue = secrets.token_hex(8)
    request = {"user_id": "u", "message": "Hi", "task_title": "T"}
    turn = processes.app.send_task("clasper.send", kwargs=request, queue=queue)
    arguments = [part.format(queue=queue) for part in command]
    with processes.running("refusing", *arguments, **LIMITS) as process:
        until(lambda: process.poll() is not None, "it ends", processes.logs["refusing"])
        said = processes.logs["refusing"].read_text()
        assert process.returncode == 1, said
    assert "CLASPER_TURN_SOFT_LIMIT_SEC (700 s)" in said
    assert "CLASPER_TURN_HARD_LIMIT_SEC (650 s)" in said
    assert "lower CLASPER_TURN_SOFT_LIMIT_SEC or raise CLASPER_TURN_HARD_LIMIT_SEC" in said
    assert "Traceback" not in said
    with redis.Redis.from_url(processes.environment["CELERY_BROKER_URL"]) as client:
        assert client.llen(queue) == 1
        client.delete(queue)
    assert turn.state == "PENDING"
