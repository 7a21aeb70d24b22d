"""What the examples run against: one real worker, shim and backend for all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.chaos.workers import Nursery
from tests.integration.connected import Connected, connected
from tests.integration.turn.conftest import run_processes


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Iterator[Connected]:
    """With a model that writes slowly enough to be interrupted."""
    folder = tmp_path_factory.mktemp("examples")
    with (
        contextmanager(run_processes)(folder, nursery) as processes,
        connected(
            processes, "--chunk-delay", "0.15", CLASPER_WEBHOOK_ALLOWED_HOSTS="127.0.0.1"
        ) as found,
    ):
        yield found
