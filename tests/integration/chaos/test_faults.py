"""The fault matrix in short: a few faults at a few points, as `make chaos` runs them at length."""

from dataclasses import replace
from pathlib import Path

import pytest

from clasper_worker.local_stack.redis_server import find_redis
from tests.chaos.options import Options
from tests.chaos.rows import find_rows
from tests.chaos.run import run_row
from tests.chaos.workers import Nursery

pytestmark = [
    pytest.mark.integration,
    pytest.mark.chaos,
    pytest.mark.skipif(find_redis() is None, reason="no Redis server here: install redis-server"),
]

SHORT = replace(Options().quick(), turns=8, points=3, visibility_seconds=4.0, copies=20, many=120)
SHORTEST = replace(SHORT, turns=4, points=1, visibility_seconds=2.0)
FORMS = {
    "kill": SHORT,
    "sigterm": SHORT,
    "backend-reset": SHORT,
    "same-key": SHORT,
    "freeze": SHORTEST,
    "prefork": SHORT,
    "redis-kill": SHORTEST,
}


@pytest.mark.parametrize("name", FORMS)
def test_no_promise_is_broken_by(name: str, nursery: Nursery, tmp_path: Path) -> None:
    (row,) = find_rows((name,))
    result = run_row(row, FORMS[name], nursery, tmp_path / name)
    assert result.broken == (), "\n".join(result.evidence)
    assert result.completed == result.turns >= FORMS[name].turns
