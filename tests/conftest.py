"""Fixtures that every test may use."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis.configuration import set_hypothesis_home_dir

from clasper_worker.config.settings import Settings
from clasper_worker.devkit.local_stack.bare_environment import bare_environment
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, find_redis, start_redis

# How long an example takes says more of the machine than of the code.
hypothesis_settings.register_profile(
    "clasper", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.register_profile(
    "quick", hypothesis_settings.get_profile("clasper"), max_examples=30
)
hypothesis_settings.load_profile("clasper")  # `make test` asks for the other


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First those that wait for real processes: what is left for the end is short."""
    items.sort(key=lambda item: item.get_closest_marker("integration") is None)


# Of pytest and its tools, of Python, and what the tests themselves are told.
_OF_TESTS = ("CI", "CLASPER_TEST_", "COV", "GITHUB_", "HYPOTHESIS_", "PYTEST_", "PYTHON")


@pytest.fixture(autouse=True, scope="session")
def own_world(
    pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """No test, and no process that one starts, sees what this machine is configured for.

    Neither its environment (backend, broker, keys, proxies) nor the .env and the running stack of
    the folder in which the tests were called.
    """
    set_hypothesis_home_dir(pytestconfig.rootpath / ".hypothesis")
    before, folder = dict(os.environ), Path.cwd()
    os.environ.clear()
    os.environ.update(bare_environment(before, *_OF_TESTS))
    os.chdir(tmp_path_factory.mktemp("own-world"))
    yield
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(autouse=True)
def own_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Each test's stack is its own."""
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
