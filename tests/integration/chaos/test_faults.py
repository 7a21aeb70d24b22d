"""The fault matrix in short: a few faults at a few points, as `make chaos` runs them at length."""

from dataclasses import replace
from pathlib import Path

import pytest

from clasper_worker.devkit.local_stack.redis_server import find_redis
from tests.chaos.options import Options
from tests.chaos.rows import find_rows
from tests.chaos.run import run_row
from tests.chaos.workers import Nursery
from tests.rabbitmq import find_rabbitmq

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
    "stream-kill": SHORT,
    "stream-shim": SHORT,
}


@pytest.mark.needs_services
@pytest.mark.skipif(find_rabbitmq() is None, reason="no RabbitMQ here: install rabbitmq-server")
def test_no_promise_is_broken_on_rabbitmq(nursery: Nursery, tmp_path: Path) -> None:
    test_no_promise_is_broken_by("rabbitmq", nursery, tmp_path)


@pytest.mark.parametrize(
    "name",
    [name if name == "kill" else pytest.param(name, marks=pytest.mark.minutes) for name in FORMS],
)
def test_no_promise_is_broken_by(name: str, nursery: Nursery, tmp_path: Path) -> None:
    (row,) = find_rows((name,))
    form = FORMS.get(name, SHORT)
    result = run_row(row, form, nursery, tmp_path / name)
    assert result.broken == (), "\n".join(result.evidence)
    assert result.completed == result.turns >= form.turns
    assert (result.misheard == 0) == name.startswith("stream-")
