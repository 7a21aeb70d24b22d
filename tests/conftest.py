"""Fixtures that every test may use."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from clasper_worker.local_stack.redis_server import RunningRedis, find_redis, start_redis
from clasper_worker.settings import Settings

# How long an example takes says more of the machine than of the code.
hypothesis_settings.register_profile(
    "clasper", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("clasper")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that wait for real processes: what is left for the end is short."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is None)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the settings, the .env or the running stack of the machine it runs on."""
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("CLASPER_STATE_DIR", str(tmp_path / ".clasper"))


@pytest.fixture
def settings_of(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Make settings from keyword arguments and defaults alone."""

    def make(**values: Any) -> Settings:
        return Settings(_env_file=None, **values)

    return make


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RunningRedis]:
    """A real Redis for the tests of this process that begin by emptying it."""
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    with start_redis() as server:
        yield server
