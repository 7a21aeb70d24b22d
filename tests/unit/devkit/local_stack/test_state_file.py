"""The state file, and that only one stack runs in a folder."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from clasper_worker.config.settings import Settings, read_running_stack
from clasper_worker.devkit.local_stack.state_file import (
    only_stack,
    prepare_state_dir,
    write_private,
    write_stack_file,
)
from clasper_worker.errors import StackError

URLS = {"shim": "http://127.0.0.1:8081"}


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    prepare_state_dir(tmp_path / ".clasper")
    return tmp_path / ".clasper"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_other_commands_read_what_the_stack_wrote(state_dir: Path) -> None:
    write_stack_file(state_dir, environment={"BACKEND_URL": "http://127.0.0.1:9001"}, urls=URLS)

    assert read_running_stack(state_dir) == {
        "pid": os.getpid(),
        "environment": {"BACKEND_URL": "http://127.0.0.1:9001"},
        "urls": URLS,
    }
    assert Settings().backend_url == "http://127.0.0.1:9001"


def test_the_environment_wins_over_the_running_stack(
    state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stack_file(state_dir, environment={"BACKEND_URL": "http://127.0.0.1:9001"}, urls=URLS)
    monkeypatch.setenv("BACKEND_URL", "http://real.example")

    assert Settings().backend_url == "http://real.example"


def test_the_state_folder_may_be_named_in_a_dotenv_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_state_dir(tmp_path / "elsewhere")
    write_stack_file(tmp_path / "elsewhere", environment={"USER_ID": "u7"}, urls=URLS)
    (tmp_path / ".env").write_text("CLASPER_STATE_DIR=elsewhere\n", "utf-8")
    monkeypatch.delenv("CLASPER_STATE_DIR")
    monkeypatch.chdir(tmp_path)

    assert Settings().user_id == "u7"


def test_only_the_owner_may_read_the_state(state_dir: Path) -> None:
    write_stack_file(state_dir, environment={}, urls={})

    assert mode(state_dir / "stack.json") == 0o600
    assert mode(state_dir) == 0o700


def test_the_state_folder_is_never_committed(state_dir: Path) -> None:
    assert (state_dir / ".gitignore").read_text("utf-8") == "*\n"


def test_a_folder_that_was_there_before_is_left_as_it_is(tmp_path: Path) -> None:
    prepare_state_dir(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StackError, match="CLASPER_STATE_DIR"):
        prepare_state_dir(tmp_path / "file" / "state")


def test_the_state_file_goes_when_the_stack_stops(state_dir: Path) -> None:
    with only_stack(state_dir):
        write_stack_file(state_dir, environment={}, urls={})

    assert not (state_dir / "stack.json").exists()


def test_a_killed_stacks_file_is_removed_by_the_next(state_dir: Path) -> None:
    # Its number may be another process's by now, so it seems to be alive.
    write_stack_file(state_dir, environment={"BACKEND_URL": "http://stale"}, urls={})

    with only_stack(state_dir):
        assert read_running_stack(state_dir) is None


def test_a_second_stack_is_told_of_the_first(state_dir: Path) -> None:
    with only_stack(state_dir):
        write_stack_file(state_dir, environment={"AGENT_JWT_SECRET": "s3cret"}, urls=URLS)

        with pytest.raises(StackError) as caught, only_stack(state_dir):
            pytest.fail("two stacks in one folder")

        assert read_running_stack(state_dir) is not None, "the first one's file must stay"
    assert str(os.getpid()) in str(caught.value)
    assert URLS["shim"] in str(caught.value)
    assert "s3cret" not in repr(caught.value)


def test_a_second_stack_is_refused_while_the_first_is_still_starting(state_dir: Path) -> None:
    with (
        only_stack(state_dir),
        pytest.raises(StackError, match=f"process {os.getpid()}, still starting"),
        only_stack(state_dir),
    ):
        pytest.fail("two stacks in one folder")


def test_a_killed_stack_does_not_keep_the_folder(state_dir: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\n"
        "from clasper_worker.devkit.local_stack.state_file import only_stack\n"
        "with only_stack(pathlib.Path(sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(state_dir)], check=False)

    with only_stack(state_dir):
        assert (state_dir / "up.lock").read_text("utf-8") == str(os.getpid())


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_private(path, "old")

    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")

    assert path.read_text("utf-8") == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_file_is_json_that_people_can_read(state_dir: Path) -> None:
    write_stack_file(state_dir, environment={}, urls=URLS)

    text = (state_dir / "stack.json").read_text("utf-8")
    assert json.loads(text)["urls"] == URLS
    assert text.endswith("\n")
