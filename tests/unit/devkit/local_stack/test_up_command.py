"""The command line of `clasper up`, as far as it goes without starting anything."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from clasper_worker.cli.up import command
from clasper_worker.devkit.local_stack.ports import PortReservations
from clasper_worker.errors import ConfigurationError, StackError, WorkspaceError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "workspace").mkdir()
    return tmp_path


def run(*arguments: str) -> BaseException | None:
    return CliRunner().invoke(command, arguments).exception


def test_its_help_has_an_example() -> None:
    result = CliRunner().invoke(command, ["--help"])

    assert result.exit_code == 0
    assert 'clasper send --user u1 "Hello"' in result.output


def test_a_backend_without_its_secret_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_URL", "https://backend.example")

    problem = run()

    assert isinstance(problem, ConfigurationError)
    assert "AGENT_JWT_SECRET" in str(problem)


def test_a_missing_workspace_is_refused_saying_how_to_make_one(folder: Path) -> None:
    (folder / "workspace").rmdir()

    problem = run()

    assert isinstance(problem, WorkspaceError)
    assert "clasper init" in str(problem)


def test_an_unreachable_broker_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with PortReservations() as ports:
        monkeypatch.setenv("CELERY_BROKER_URL", f"redis://127.0.0.1:{ports.choose(0)}/0")

        problem = run()

    assert isinstance(problem, StackError)
    assert "CELERY_BROKER_URL" in str(problem)


def test_a_refusal_leaves_no_state_file_and_no_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BACKEND_URL", "https://backend.example")

    assert isinstance(run(), ConfigurationError)
    assert isinstance(run(), ConfigurationError), "the first one must not count as running"
    assert not Path(".clasper", "stack.json").exists()


@pytest.mark.parametrize("arguments", [("--port", "70000"), ("--concurrency", "0")])
def test_a_senseless_option_is_refused(arguments: tuple[str, ...]) -> None:
    assert CliRunner().invoke(command, arguments).exit_code == 2
