"""What a worker's log tells of the ends of turns."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from tests.waiting import until

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def node(processes: Any) -> Iterator[str]:
    with processes.worker() as node:
        yield node


def lines_of(processes: Any, job_id: str, event: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for line in processes.logs["worker"].read_text().splitlines()
        if line.startswith("{") and f'"{event}"' in line and job_id in line
    ]


def one_line(processes: Any, job_id: str, event: str) -> dict[str, Any]:
    until(lambda: lines_of(processes, job_id, event), event, processes.logs["worker"])
    (line,) = lines_of(processes, job_id, event)
    return line


def send(processes: Any, **fields: Any) -> Any:
    return processes.app.send_task("clasper.send", kwargs=fields, queue="clasper")


def test_a_completed_turn_tells_who_how_long_and_how_much(processes: Any, node: str) -> None:
    user = secrets.token_hex(8)
    turn = send(processes, user_id=user, agent_role="writer", task_title="T",
                message='Create a task called "Buy milk"')  # fmt: skip
    result = turn.get(timeout=60)
    line = one_line(processes, turn.id, "turn.completed")
    assert (line["role"], line["session"]) == ("writer", f"user:{user}:writer")
    assert line["model"] == result["cost"]["model"]
    assert line["tokens"]["total"] == result["usage"]["total_tokens"]
    assert line["cost"] is None  # the offline model has no price
    duration = line["duration"]
    parts = [duration[part] for part in ("model", "tools", "backend")]
    assert all(part > 0 for part in parts)
    assert sum(parts) <= duration["total"] + 0.01
    assert duration["queue"] >= 0
    assert "milk" not in json.dumps(line)


def test_a_failed_turn_tells_the_same_of_itself(processes: Any, node: str) -> None:
    user = secrets.token_hex(8)
    turn = send(processes, user_id=user, agent_role="writer", task_id="no-such", message="Hello")
    with pytest.raises(Exception, match="no task 'no-such'"):
        turn.get(timeout=60)
    line = one_line(processes, turn.id, "turn.failed")
    assert (line["role"], line["session"]) == ("writer", f"user:{user}:writer")
    assert line["error"] == "backend_not_found"
    assert line["duration"]["backend"] > 0
    assert line["duration"]["model"] == 0
