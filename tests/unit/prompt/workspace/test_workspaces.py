import threading
import time
from pathlib import Path

import pytest

from clasper_worker.errors import InvalidRequestError, WorkspaceError
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.prompt.workspace.watcher import Watcher
from clasper_worker.prompt.workspace.workspaces import Workspaces


def make(path: Path, soul: str) -> Path:
    path.mkdir()
    (path / "SOUL.md").write_text(soul)
    return path


@pytest.fixture
def paths(tmp_path: Path) -> dict[str, Path]:
    return {name: make(tmp_path / name, name) for name in ("main", "acme", "beta")}


@pytest.mark.parametrize(
    ("asked", "user_id", "soul"),
    [
        (None, "u1", "main"),
        ("default", "u1", "main"),
        ("acme", "u1", "acme"),
        (None, "acme", "acme"),
        ("beta", "acme", "beta"),
        ("default", "acme", "main"),
    ],
)
def test_the_request_chooses_then_the_tenants_name_then_the_default(
    asked: str | None, user_id: str, soul: str, paths: dict[str, Path]
) -> None:
    workspaces = Workspaces.open(paths.pop("main"), paths)
    assert workspaces.snapshot(asked, user_id).text("SOUL.md") == soul
    workspaces.close()


@pytest.mark.parametrize("asked", ["gamma", "../acme", "", "/etc"])
def test_a_workspace_that_is_not_allowed_is_refused_by_field_problem_and_fix(
    asked: str, paths: dict[str, Path]
) -> None:
    workspaces = Workspaces.open(paths.pop("main"), paths)
    with pytest.raises(InvalidRequestError) as caught:
        workspaces.snapshot(asked, "u1")
    (field,) = caught.value.details["fields"]
    assert field["field"] == "metadata.workspace"
    assert {"field", "problem", "fix"} == set(field)
    workspaces.close()


def test_a_named_workspace_that_is_missing_is_an_error_for_its_own_turns_until_it_is_there(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    later = tmp_path / "later"
    prepared: dict[Path, threading.Thread] = {}

    def prepare(snapshot: WorkspaceSnapshot) -> None:
        prepared[snapshot.root] = threading.current_thread()

    workspaces = Workspaces.open(
        paths["main"], {"later": later}, prepare, watcher=Watcher(interval=0.02, settle=0.01)
    )
    assert workspaces.snapshot(None, "u1").text("SOUL.md") == "main"
    with pytest.raises(WorkspaceError, match="clasper init"):
        workspaces.snapshot("later", "u1")
    make(tmp_path / "made", "here now").rename(later)
    deadline = time.monotonic() + 20
    while True:
        try:
            found = workspaces.snapshot("later", "u1")
        except WorkspaceError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            break
    assert found.text("SOUL.md") == "here now"
    # Reading and indexing it took the watcher's time, and no turn's.
    assert prepared[later] is not threading.current_thread()
    workspaces.close()


def test_a_workspace_that_is_missing_when_all_are_closed_is_looked_for_no_more(
    paths: dict[str, Path], tmp_path: Path
) -> None:
    watcher = Watcher(interval=0.02, settle=0.01)
    workspaces = Workspaces.open(paths["main"], {"later": tmp_path / "later"}, watcher=watcher)
    workspaces.close()
    workspaces.look_for("later")
    make(tmp_path / "later", "too late")
    workspaces.look_for("later")
    assert watcher._targets == ()


def test_a_missing_default_workspace_is_an_error_at_once(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError):
        Workspaces.open(tmp_path / "nowhere")
