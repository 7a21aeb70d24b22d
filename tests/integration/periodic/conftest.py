"""The same processes as those of the turns' tests."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.workers import Nursery
from tests.integration.turn import conftest as turns
from tests.waiting import until

Until = Callable[[Callable[[], Any], str], None]


@pytest.fixture(scope="module")
def processes(
    tmp_path_factory: pytest.TempPathFactory, nursery: Nursery
) -> Iterator[turns.Processes]:
    yield from turns.run_processes(tmp_path_factory.mktemp("processes"), nursery)


@pytest.fixture
def wait_until(processes: turns.Processes) -> Until:
    logs = processes.logs

    def wait(condition: Callable[[], Any], what: str) -> None:
        log: Path | None = next(reversed(logs.values()), None)
        until(lambda: bool(condition()), what, log)

    return wait
