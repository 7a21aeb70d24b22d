import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from clasper_worker.errors import WorkspaceError
from clasper_worker.prompt.workspace.skills import Host
from clasper_worker.prompt.workspace.watcher import Watcher
from clasper_worker.prompt.workspace.workspace import MAX_SETTLE_SEC, Workspace
from tests.waiting import until

GOOD = {"AGENTS.md": "rules", "SOUL.md": "soul"}


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(write: Callable[..., Path], host: Host, clock: Clock) -> Workspace:
    """A workspace that nothing watches: the test says when it looks."""
    return Workspace(write(GOOD), host, clock)


@pytest.fixture
def watcher() -> Watcher:
    """A watcher of the test's own, faster than the process's."""
    return Watcher(interval=0.02, settle=0.01)


def soul(workspace: Workspace) -> str | None:
    return workspace.current().text("SOUL.md")


def settle(workspace: Workspace) -> None:
    while workspace.look():
        pass


def test_opening_a_folder_that_does_not_exist_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WorkspaceError, match="clasper init"):
        Workspace.open(tmp_path / "nowhere")


def test_an_unchanged_workspace_keeps_its_very_snapshot(opened: Workspace) -> None:
    before = opened.current()
    for _ in range(3):
        assert not opened.look()
    assert opened.current() is before


def test_a_change_is_taken_when_two_looks_agree(
    opened: Workspace, write: Callable[..., Path]
) -> None:
    write({"SOUL.md": "a new soul"})
    assert opened.look()
    assert soul(opened) == "soul"
    assert not opened.look()
    assert soul(opened) == "a new soul"


def test_a_save_under_way_is_not_taken(opened: Workspace, write: Callable[..., Path]) -> None:
    write({"SOUL.md": ""})
    assert opened.look()
    write({"SOUL.md": "a new"})
    assert opened.look()
    assert soul(opened) == "soul"
    write({"SOUL.md": "a new soul"})
    assert opened.look()
    assert not opened.look()
    assert soul(opened) == "a new soul"


def test_a_change_that_is_taken_back_before_it_settles_changes_nothing(
    opened: Workspace, write: Callable[..., Path]
) -> None:
    before = opened.current()
    root = write({"USER.md": "x"})
    assert opened.look()
    (root / "USER.md").unlink()
    assert not opened.look()
    assert opened.current() is before


def test_files_that_never_stop_changing_are_taken_all_the_same(
    opened: Workspace, write: Callable[..., Path], clock: Clock
) -> None:
    write({"SOUL.md": "one"})
    assert opened.look()
    clock.now += MAX_SETTLE_SEC
    write({"SOUL.md": "one two"})
    assert not opened.look()
    assert soul(opened) == "one two"


def test_several_files_change_in_one_step(opened: Workspace, write: Callable[..., Path]) -> None:
    write({"SOUL.md": "soul 2"})
    assert opened.look()
    write({"AGENTS.md": "rules 2"})
    settle(opened)
    assert (opened.current().text("AGENTS.md"), soul(opened)) == ("rules 2", "soul 2")


def test_skills_and_souls_that_appear_or_vanish_are_noticed(
    opened: Workspace, write: Callable[..., Path], skill: Callable[..., str]
) -> None:
    root = write({"souls/writer.md": "writer", "skills/a/SKILL.md": skill("a")})
    settle(opened)
    assert opened.current().soul_file("writer") == "souls/writer.md"
    assert list(opened.current().skills) == ["a"]
    (root / "souls/writer.md").unlink()
    (root / "skills/a/SKILL.md").unlink()
    (root / "skills/a").rmdir()
    settle(opened)
    assert opened.current().soul_file("writer") == "SOUL.md"
    assert opened.current().skills == {}


def test_a_save_that_no_stamp_shows_is_found_by_reading_once_more(
    opened: Workspace, write: Callable[..., Path], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A file system with coarse times: the second save has the stamp of the first.
    write({"SOUL.md": "lous"})
    same_stamps = opened._taken
    monkeypatch.setattr(opened._reader, "look", lambda: same_stamps)
    assert not opened.look()
    assert soul(opened) == "soul"
    clock.now += 10
    assert not opened.look()
    assert soul(opened) == "lous"


def test_a_program_that_is_installed_later_switches_its_skill_on(
    write: Callable[..., Path], skill: Callable[..., str]
) -> None:
    installed: dict[str, str] = {}
    root = write(GOOD | {"skills/a/SKILL.md": skill("a", extra="requires: {bins: jq}\n")})
    workspace = Workspace(root, Host("linux", frozenset(), installed.get))
    assert workspace.current().skills["a"].off_reason == "program not on PATH: jq"
    installed["jq"] = "/usr/bin/jq"
    workspace.look()
    assert workspace.current().skills["a"].enabled


def test_a_deployment_that_switches_the_workspaces_link_switches_the_workspace(
    write: Callable[..., Path], host: Host, tmp_path: Path
) -> None:
    write({"AGENTS.md": "rules 1", "SOUL.md": "soul 1"})
    (tmp_path / "v2").mkdir()
    (tmp_path / "v2/AGENTS.md").write_text("rules 2")
    (tmp_path / "v2/SOUL.md").write_text("soul 2")
    (tmp_path / "current").symlink_to("workspace")
    workspace = Workspace(tmp_path / "current", host)
    (tmp_path / "next").symlink_to("v2")
    (tmp_path / "next").replace(tmp_path / "current")
    settle(workspace)
    assert soul(workspace) == "soul 2"


def test_a_workspace_that_is_deleted_keeps_its_last_version_and_comes_back(
    opened: Workspace, write: Callable[..., Path]
) -> None:
    root = write({})
    moved = root.rename(root.with_name("moved"))
    with capture_logs() as logs:
        assert not opened.look()
        assert not opened.look()
    assert [entry["event"] for entry in logs] == ["workspace_gone"]
    assert soul(opened) == "soul"
    moved.rename(root)
    write({"SOUL.md": "back"})
    settle(opened)
    assert soul(opened) == "back"


def test_each_warning_is_logged_once_for_each_change(
    write: Callable[..., Path], host: Host
) -> None:
    with capture_logs() as logs:
        workspace = Workspace(write({"SOUL.md": "soul"}), host)
        for _ in range(3):
            workspace.look()
    warned = [entry for entry in logs if entry["event"] == "workspace_warning"]
    assert [entry["file"] for entry in warned] == ["AGENTS.md"]
    assert "built-in operating rules" in warned[0]["problem"]
    with capture_logs() as logs:
        write({"USER.md": b"\xff"})
        settle(workspace)
        workspace.look()
    warned = [entry for entry in logs if entry["event"] == "workspace_warning"]
    assert [entry["file"] for entry in warned] == ["USER.md"]


def test_a_change_is_logged_by_the_names_of_its_files_and_not_their_text(
    opened: Workspace, write: Callable[..., Path], skill: Callable[..., str]
) -> None:
    with capture_logs() as logs:
        write({"SOUL.md": "private words", "skills/a/SKILL.md": skill("a")})
        settle(opened)
    (changed,) = [entry for entry in logs if entry["event"] == "workspace_changed"]
    assert changed["changed"] == ["SOUL.md", "skills/a/SKILL.md"]
    assert "private words" not in str(logs)


def test_the_background_watcher_picks_up_an_edit(
    write: Callable[..., Path], host: Host, watcher: Watcher
) -> None:
    with Workspace.open(write(GOOD), host=host, watcher=watcher) as workspace:
        write({"SOUL.md": "edited"})
        until(lambda: soul(workspace) == "edited")


def test_a_closed_workspace_is_watched_no_more_and_still_answers(
    write: Callable[..., Path], host: Host, watcher: Watcher
) -> None:
    workspace = Workspace.open(write(GOOD), host=host, watcher=watcher)
    workspace.close()
    workspace.close()
    assert soul(workspace) == "soul"


def test_readers_in_many_threads_never_see_a_mixture_of_two_versions(
    opened: Workspace, write: Callable[..., Path]
) -> None:
    stop = threading.Event()
    mixtures: list[object] = []
    seen: set[str | None] = set()

    def read() -> None:
        while not stop.is_set():
            snapshot = opened.current()
            pair = (snapshot.text("AGENTS.md"), snapshot.text("SOUL.md"))
            seen.add(pair[0])
            if pair != ("rules", "soul") and pair[0] != pair[1]:
                mixtures.append(pair)

    threads = [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for version in range(5):
        write({"AGENTS.md": f"version {version}", "SOUL.md": f"version {version}"})
        settle(opened)
    until(lambda: "version 4" in seen)
    stop.set()
    for thread in threads:
        thread.join()
    assert mixtures == []


def run_script(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WARM_BUILD = """
import os, sys
from datetime import UTC, datetime
from clasper_worker.prompt.builder import build_prompt
from clasper_worker.prompt.models import PromptInputs
from clasper_worker.prompt.retrieval.selection import SmartLimits
from clasper_worker.prompt.workspace.skills import this_host
from clasper_worker.prompt.retrieval.smart_context import SmartContext
from clasper_worker.prompt.workspace.workspace import Workspace
import asyncio
from pathlib import Path

smart = SmartContext()
workspace = Workspace(Path(sys.argv[1]), this_host(), prepare=smart.prepare)

# More zones than the standard library keeps by itself (8).
ZONES = ["Asia/Tokyo", "Asia/Seoul", "Asia/Dubai", "Europe/Berlin", "Europe/Paris", "Europe/Rome",
         "America/Lima", "America/Bogota", "America/Denver", "Africa/Cairo", "Africa/Lagos", "UTC",
         "No/Zone"]

def build_all():
    for role in ("writer", "other"):
        for zone in ZONES:
            inputs = PromptInputs(role=role, now=datetime.now(UTC), timezone=zone,
                                  task_title="t", tool_names=("x",), forced_skills=("a",))
            assert "soul" in build_prompt(workspace.current(), inputs).system
    selection = asyncio.run(smart.select(workspace.current(), "does a", SmartLimits()))
    assert selection.ranker == "bm25" and selection.skills == ("a",)
    inputs = PromptInputs(role="writer", now=datetime.now(UTC), selection=selection)
    assert "skill name=" in build_prompt(workspace.current(), inputs).turn_context

build_all()
touched = []
sys.addaudithook(lambda event, args: touched.append(event)
                 if event in ("open", "os.listdir", "os.scandir") else None)
def refuse(*args, **kwargs):
    touched.append("stat")
    raise AssertionError("a stat in a warm turn")
os.stat = os.lstat = os.path.realpath = refuse
for _ in range(5):
    build_all()
counted = list(touched)
open(os.devnull).close()   # the hook does count
print(len(counted), len(touched) - len(counted))
"""


def test_a_warm_prompt_build_touches_no_file(
    write: Callable[..., Path], skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"souls/writer.md": "soul w", "skills/a/SKILL.md": skill("a")})
    assert run_script(WARM_BUILD, str(root)) == "0 1"


FORK = """
import os, sys, time
from pathlib import Path
from clasper_worker.prompt.workspace.workspace import Workspace

root = Path(sys.argv[1])
workspace = Workspace.open(root)
child = os.fork()
if child == 0:
    (root / "SOUL.md").write_text("edited after the fork")
    deadline = time.monotonic() + 30
    while workspace.current().text("SOUL.md") != "edited after the fork":
        if time.monotonic() > deadline:
            os._exit(1)
        time.sleep(0.05)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_goes_on_watching(write: Callable[..., Path]) -> None:
    # Both processes log the change, the parent perhaps after the child's exit code.
    assert "0" in run_script(FORK, str(write(GOOD))).splitlines()


def test_importing_the_package_starts_no_thread() -> None:
    script = (
        "import clasper_worker.prompt.workspace.workspace, clasper_worker.prompt.builder\n"
        "import threading;"
        "print(threading.active_count())"
    )
    assert run_script(script) == "1"
