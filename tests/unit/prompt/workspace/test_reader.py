import os
from collections.abc import Callable
from pathlib import Path

import pytest

from clasper_worker.errors import WorkspaceError
from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import Host
from clasper_worker.prompt.workspace.snapshot import TOP_FILES, WorkspaceSnapshot

GOOD = {"AGENTS.md": "rules", "SOUL.md": "soul"}


def texts(snapshot: WorkspaceSnapshot) -> dict[str, str]:
    return {name: file.text for name, file in snapshot.files.items()}


def problems(snapshot: WorkspaceSnapshot) -> list[str]:
    return [str(warning) for warning in snapshot.warnings]


def test_every_file_of_the_format_is_read(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    files = {name: f"text of {name}" for name in TOP_FILES}
    files |= {"souls/writer.md": "writer", "memory/2026-03-05.md": "notes"}
    found = snapshot(files | {"skills/a/SKILL.md": skill("alpha"), "README.md": "not ours"})
    assert texts(found) == files
    assert list(found.skills) == ["alpha"]
    assert found.warnings == ()


@pytest.mark.parametrize("make_file", [False, True])
def test_a_workspace_that_is_not_there_is_an_error_that_says_how_to_make_one(
    tmp_path: Path, host: Host, make_file: bool
) -> None:
    path = tmp_path / "nowhere"
    if make_file:
        path.write_text("a file")
    with pytest.raises(WorkspaceError) as caught:
        WorkspaceReader(path, host).look()
    assert "clasper init" in str(caught.value)
    assert "CLASPER_WORKSPACE" in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.details["variable"] == "CLASPER_WORKSPACE"


def test_an_empty_workspace_warns_of_agents_md_and_soul_alone(
    snapshot: Callable[..., WorkspaceSnapshot],
) -> None:
    found = snapshot({})
    assert found.files == {}
    assert [warning.file for warning in found.warnings] == ["AGENTS.md", "SOUL.md"]


def test_blank_files_count_as_missing(snapshot: Callable[..., WorkspaceSnapshot]) -> None:
    found = snapshot({"AGENTS.md": " \n\t", "SOUL.md": "", "USER.md": ""})
    assert [warning.file for warning in found.warnings] == ["AGENTS.md", "SOUL.md"]
    assert found.text("USER.md") is None


def test_role_souls_alone_are_souls_enough(snapshot: Callable[..., WorkspaceSnapshot]) -> None:
    found = snapshot({"AGENTS.md": "rules", "souls/writer.md": "writer"})
    assert found.warnings == ()


@pytest.mark.parametrize("role", ["a b", "a.b", "ü"])
def test_a_soul_that_no_role_can_have_is_reported_and_left_out(
    snapshot: Callable[..., WorkspaceSnapshot], role: str
) -> None:
    found = snapshot(GOOD | {f"souls/{role}.md": "x"})
    assert texts(found) == GOOD
    assert "is no role's soul" in problems(found)[0]


def test_a_memory_folder_that_leads_out_or_back_to_itself_is_not_followed(
    write: Callable[..., Path], host: Host, tmp_path: Path
) -> None:
    root = write({"AGENTS.md": "a", "SOUL.md": "s"})
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "2026-03-05.md").write_text("secret")
    for target in (outside, Path("memory")):
        (root / "memory").symlink_to(target)
        reader = WorkspaceReader(root, host)
        found = reader.read(reader.look())
        assert set(found.files) == {"AGENTS.md", "SOUL.md"}
        assert [warning.file for warning in found.warnings] == ["memory"]
        (root / "memory").unlink()


@pytest.mark.parametrize("name", ["ideas.md", "2026-02-30.md", "2026-3-5.md", "20260305.md"])
def test_a_memory_file_that_is_no_days_is_reported_and_left_out(
    name: str, snapshot: Callable[..., WorkspaceSnapshot]
) -> None:
    found = snapshot({"AGENTS.md": "a", "SOUL.md": "s", f"memory/{name}": "text"})
    assert set(found.files) == {"AGENTS.md", "SOUL.md"}
    assert [warning.file for warning in found.warnings] == [f"memory/{name}"]


def test_a_role_has_its_own_soul_else_the_common_one(
    snapshot: Callable[..., WorkspaceSnapshot],
) -> None:
    found = snapshot(GOOD | {"souls/writer.md": "writer", "souls/blank.md": " "})
    assert found.soul_file("writer") == "souls/writer.md"
    assert found.soul_file("blank") == "SOUL.md"
    assert found.soul_file("other") == "SOUL.md"


def test_the_role_default_without_any_soul_has_none(
    snapshot: Callable[..., WorkspaceSnapshot],
) -> None:
    assert snapshot({"AGENTS.md": "x"}).soul_file("default") is None


def test_binary_files_are_reported_and_left_out(snapshot: Callable[..., WorkspaceSnapshot]) -> None:
    found = snapshot(GOOD | {"USER.md": b"\x00\x01", "MEMORY.md": b"\xff\xfe"})
    assert texts(found) == GOOD
    assert problems(found) == [
        "USER.md: holds NUL bytes, so it is not a text file; it is left out",
        "MEMORY.md: is not UTF-8 text (byte 0xff); save it as UTF-8; it is left out",
    ]


def test_a_file_that_was_cut_is_reported(snapshot: Callable[..., WorkspaceSnapshot]) -> None:
    found = snapshot(GOOD | {"MEMORY.md": "x" * 30_000})
    assert problems(found) == [
        (
            "MEMORY.md: has 30,000 characters and was cut to 20,000;"
            " shorten it, or move parts into skills"
        )
    ]


def test_a_broken_skill_is_reported_with_file_and_line_and_the_others_stay(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    broken = "---\nname: b\nmetadata: {oops\n---\n"
    found = snapshot(GOOD | {"skills/a/SKILL.md": skill("a"), "skills/b/SKILL.md": broken})
    assert list(found.skills) == ["a"]
    assert [w.file for w in found.warnings] == ["skills/b/SKILL.md"]
    assert ": YAML: " in problems(found)[0]
    assert "it is left out" in problems(found)[0]


def test_a_skill_with_a_slip_is_used_and_the_slip_reported(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    slip = "---\nname: b\ndescription: a: b\n---\n"
    bare = "# Manage tasks\n\nBy the API.\n"
    found = snapshot(GOOD | {"skills/b/SKILL.md": slip, "skills/task-management/SKILL.md": bare})
    assert found.skills["b"].description == "a: b"
    assert found.skills["task-management"].enabled
    (told,) = problems(found)
    assert told.startswith("skills/b/SKILL.md:3: description: YAML: mapping values")


def test_of_two_skills_with_one_name_the_first_folder_wins_and_the_other_is_reported(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    found = snapshot(
        GOOD
        | {
            "skills/b/SKILL.md": skill("same", body="B"),
            "skills/a/SKILL.md": skill("same", body="A"),
        }
    )
    assert found.skills["same"].instructions == "A"
    assert problems(found) == [
        (
            "skills/b/SKILL.md: has the same name as skills/a/SKILL.md; it is left out;"
            " rename one of them"
        )
    ]


def test_a_skill_that_is_off_stays_listed_with_its_reason(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    found = snapshot(GOOD | {"skills/a/SKILL.md": skill("a", extra="requires: {env: KEY}\n")})
    assert found.skills["a"].off_reason == "environment variable not set: KEY"


def test_a_skill_folder_without_a_skill_file_is_reported(
    snapshot: Callable[..., WorkspaceSnapshot],
) -> None:
    found = snapshot(GOOD | {"skills/a/README.md": "x", "skills/.git/x": "x", "skills/file": "x"})
    assert problems(found) == ["skills/a/SKILL.md: is missing; it is left out"]


def test_a_skill_with_windows_line_ends_and_byte_order_mark_is_read(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    content = b"\xef\xbb\xbf" + skill("a").replace("\n", "\r\n").encode()
    assert list(snapshot(GOOD | {"skills/a/SKILL.md": content}).skills) == ["a"]


def test_a_skill_longer_than_the_limit_is_cut_and_usable(
    snapshot: Callable[..., WorkspaceSnapshot], skill: Callable[..., str]
) -> None:
    found = snapshot(GOOD | {"skills/a/SKILL.md": skill("a", body="x" * 25_000)})
    assert "was cut here" in found.skills["a"].instructions
    assert len(found.warnings) == 1


def test_cyclic_and_dangling_links_are_reported_and_nothing_else_breaks(
    write: Callable[..., Path], host: Host, skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"skills/a/SKILL.md": skill("a"), "souls/ok.md": "ok"})
    (root / "USER.md").symlink_to("USER.md")
    (root / "MEMORY.md").symlink_to("nowhere.md")
    (root / "skills/loop").symlink_to("loop")
    (root / "skills/up").symlink_to("..")
    (root / "skills/gone").symlink_to("nowhere")
    (root / "souls/loop.md").symlink_to("loop.md")
    reader = WorkspaceReader(root, host)
    found = reader.read(reader.look())
    assert list(found.skills) == ["a"]
    assert set(found.files) == {"AGENTS.md", "SOUL.md", "souls/ok.md"}
    assert {warning.file: warning.problem.split(";")[0] for warning in found.warnings} == {
        "USER.md": "is a symbolic link that leads back to itself",
        "souls/loop.md": "is a symbolic link that leads back to itself",
        "skills/loop/SKILL.md": "is a symbolic link that leads back to itself",
        "skills/up/SKILL.md": "is missing",
        "skills/gone/SKILL.md": "is missing",
    }


def test_a_cyclic_skills_folder_is_reported_and_the_workspace_still_opens(
    write: Callable[..., Path], host: Host
) -> None:
    root = write(GOOD)
    (root / "skills").symlink_to("skills")
    reader = WorkspaceReader(root, host)
    found = reader.read(reader.look())
    assert texts(found) == GOOD
    assert problems(found) == [
        "skills: is a symbolic link that leads back to itself; it is left out"
    ]


def test_links_that_leave_the_workspace_are_not_followed(
    write: Callable[..., Path], host: Host, tmp_path: Path, skill: Callable[..., str]
) -> None:
    root = write(GOOD)
    outside = tmp_path / "outside"
    (outside / "x").mkdir(parents=True)
    (outside / "x/SKILL.md").write_text(skill("stolen"))
    (outside / "spy.md").write_text("secret")
    (root / "skills").symlink_to(outside)
    (root / "souls").mkdir()
    (root / "souls/spy.md").symlink_to(outside / "spy.md")
    reader = WorkspaceReader(root, host)
    found = reader.read(reader.look())
    assert texts(found) == GOOD
    assert found.skills == {}
    assert [warning.file for warning in found.warnings] == ["souls/spy.md", "skills"]
    assert all("leads out of the workspace" in warning.problem for warning in found.warnings)


def test_only_files_whose_stamp_changed_are_read_again(
    write: Callable[..., Path], host: Host, skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"skills/a/SKILL.md": skill("a")})
    reader = WorkspaceReader(root, host)
    first = reader.read(reader.look())
    write({"SOUL.md": "another soul"})
    second = reader.read(reader.look())
    assert second.files["AGENTS.md"] is first.files["AGENTS.md"]
    assert second.skills["a"] is first.skills["a"]
    assert second.files["SOUL.md"].text == "another soul"


def test_a_file_that_became_unusable_keeps_its_last_good_version_with_a_warning(
    write: Callable[..., Path], host: Host
) -> None:
    root = write(GOOD)
    reader = WorkspaceReader(root, host)
    reader.read(reader.look())
    write({"AGENTS.md": b"rul\xff"})
    found = reader.read(reader.look())
    assert texts(found) == GOOD
    assert "the last good version stays in use" in problems(found)[0]


def test_a_skill_that_became_broken_keeps_its_last_good_version(
    write: Callable[..., Path], host: Host, skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"skills/a/SKILL.md": skill("a", body="Good.")})
    reader = WorkspaceReader(root, host)
    reader.read(reader.look())
    write({"skills/a/SKILL.md": "---\nname: a\ndescr"})
    found = reader.read(reader.look())
    assert found.skills["a"].instructions == "Good."
    assert problems(found) == [
        (
            "skills/a/SKILL.md:1: the front matter is not closed;"
            " add a line --- after its last field; the last good version stays in use"
        )
    ]
    write({"skills/a/SKILL.md": skill("a", body="Better.")})
    fixed = reader.read(reader.look())
    assert fixed.skills["a"].instructions == "Better."
    assert fixed.warnings == ()


def test_a_skills_folder_that_cannot_be_listed_any_more_keeps_its_skills(
    write: Callable[..., Path], host: Host, skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"skills/a/SKILL.md": skill("a")})
    reader = WorkspaceReader(root, host)
    reader.read(reader.look())
    (root / "skills").rename(root / "old")
    (root / "skills").symlink_to("skills")
    found = reader.read(reader.look())
    assert list(found.skills) == ["a"]
    assert [warning.file for warning in found.warnings] == ["skills", "skills/a/SKILL.md"]


def test_deleted_files_and_skills_are_gone(
    write: Callable[..., Path], host: Host, skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"USER.md": "user", "skills/a/SKILL.md": skill("a")})
    reader = WorkspaceReader(root, host)
    reader.read(reader.look())
    (root / "USER.md").unlink()
    (root / "skills/a/SKILL.md").unlink()
    (root / "skills/a").rmdir()
    found = reader.read(reader.look())
    assert texts(found) == GOOD
    assert found.skills == {}


def test_a_save_that_keeps_size_and_time_is_still_seen(
    write: Callable[..., Path], host: Host
) -> None:
    root = write(GOOD)
    reader = WorkspaceReader(root, host)
    before = reader.look()
    status = (root / "SOUL.md").stat()
    (root / "new").write_text("ciao")
    os.utime(root / "new", ns=(status.st_atime_ns, status.st_mtime_ns))
    (root / "new").replace(root / "SOUL.md")
    assert reader.look() != before


def test_an_unchanged_workspace_reads_equal(
    write: Callable[..., Path], host: Host, skill: Callable[..., str]
) -> None:
    root = write(GOOD | {"skills/a/SKILL.md": skill("a")})
    reader = WorkspaceReader(root, host)
    first = reader.read(reader.look())
    assert reader.read(reader.look(), again=True) == first


def test_a_snapshot_cannot_be_changed(snapshot: Callable[..., WorkspaceSnapshot]) -> None:
    found = snapshot(GOOD)
    with pytest.raises(TypeError):
        found.files["AGENTS.md"] = None  # type: ignore[index]
    with pytest.raises(AttributeError):
        found.warnings = ()  # type: ignore[misc]


def test_a_snapshot_shows_no_text_of_its_files(snapshot: Callable[..., WorkspaceSnapshot]) -> None:
    assert "rules" not in repr(snapshot(GOOD))
    assert "rules" not in repr(snapshot(GOOD).files["AGENTS.md"])
