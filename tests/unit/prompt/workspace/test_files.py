import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from clasper_worker.prompt.workspace import files
from clasper_worker.prompt.workspace.files import MAX_FILE_CHARS, UnreadableFileError, read_file
from tests.examples import examples


def test_byte_order_mark_and_crlf_are_not_part_of_the_text(write: Callable[..., Path]) -> None:
    root = write({"AGENTS.md": b"\xef\xbb\xbfone\r\ntwo\rthree\n"})
    assert read_file(root, "AGENTS.md").text == "one\ntwo\nthree\n"


def test_a_file_of_exactly_the_limit_is_whole(write: Callable[..., Path]) -> None:
    root = write({"AGENTS.md": "ä" * MAX_FILE_CHARS})
    file = read_file(root, "AGENTS.md")
    assert not file.truncated
    assert file.text == "ä" * MAX_FILE_CHARS


def test_a_longer_file_is_cut_to_the_limit_with_a_marker_that_says_so(
    write: Callable[..., Path],
) -> None:
    root = write({"AGENTS.md": "x" * (MAX_FILE_CHARS + 1)})
    file = read_file(root, "AGENTS.md")
    assert file.truncated
    assert file.raw_chars == MAX_FILE_CHARS + 1
    assert len(file.text) == MAX_FILE_CHARS
    assert file.text.endswith(
        "[AGENTS.md was cut here: it has 20,001 characters, of which at most 20,000 are used.]"
    )


def test_a_10_mb_file_is_counted_whole_and_kept_short(write: Callable[..., Path]) -> None:
    root = write({"MEMORY.md": "0123456789abcde\n" * 655_360})
    file = read_file(root, "MEMORY.md")
    assert file.raw_chars == 10 * 1024 * 1024
    assert len(file.text) == MAX_FILE_CHARS


def test_a_broken_character_far_beyond_the_cut_still_makes_the_file_unusable(
    write: Callable[..., Path],
) -> None:
    root = write({"MEMORY.md": b"x" * 3_000_000 + b"\xff"})
    with pytest.raises(UnreadableFileError, match="not UTF-8"):
        read_file(root, "MEMORY.md")


def test_a_file_larger_than_the_byte_limit_is_refused_unread(write: Callable[..., Path]) -> None:
    root = write({"MEMORY.md": ""})
    os.truncate(root / "MEMORY.md", files.MAX_FILE_BYTES + 1)
    with pytest.raises(UnreadableFileError, match="33,554,433 bytes"):
        read_file(root, "MEMORY.md")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00", "not UTF-8"),
        ("text".encode("utf-16"), "not UTF-8"),
        (b"caf\xe9", "not UTF-8"),
        (b"text\x00text", "NUL bytes"),
        (b"half a character \xf0\x9f", "not UTF-8"),
    ],
)
def test_what_is_not_utf_8_text_is_refused_with_the_reason(
    write: Callable[..., Path], content: bytes, message: str
) -> None:
    root = write({"AGENTS.md": content})
    with pytest.raises(UnreadableFileError, match=message):
        read_file(root, "AGENTS.md")


@pytest.mark.parametrize("name", ["../secret.md", "souls/../../secret.md"])
def test_a_path_that_climbs_out_of_the_workspace_is_refused(
    write: Callable[..., Path], name: str
) -> None:
    root = write({"souls/a.md": "x"})
    (root.parent / "secret.md").write_text("secret")
    with pytest.raises(UnreadableFileError, match="leads out of the workspace"):
        read_file(root, name)


def test_an_absolute_path_is_refused(write: Callable[..., Path], tmp_path: Path) -> None:
    secret = tmp_path / "secret.md"
    secret.write_text("secret")
    with pytest.raises(UnreadableFileError, match="leads out of the workspace"):
        read_file(write({}), str(secret))


def test_a_symlink_out_of_the_workspace_is_refused(write: Callable[..., Path]) -> None:
    root = write({})
    (root.parent / "secret.md").write_text("secret")
    (root / "AGENTS.md").symlink_to("../secret.md")
    with pytest.raises(UnreadableFileError, match="leads out of the workspace"):
        read_file(root, "AGENTS.md")


def test_a_folder_whose_name_begins_like_the_workspace_is_outside(
    write: Callable[..., Path],
) -> None:
    root = write({})
    sibling = root.parent / "workspace-secret"
    sibling.mkdir()
    (sibling / "a.md").write_text("secret")
    (root / "AGENTS.md").symlink_to(sibling / "a.md")
    with pytest.raises(UnreadableFileError, match="leads out of the workspace"):
        read_file(root, "AGENTS.md")


def test_a_symlink_inside_the_workspace_is_followed(write: Callable[..., Path]) -> None:
    root = write({"..data/AGENTS.md": "rules"})
    (root / "AGENTS.md").symlink_to("..data/AGENTS.md")
    assert read_file(root, "AGENTS.md").text == "rules"


def test_a_workspace_that_is_itself_a_symlink_is_read(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    write({"AGENTS.md": "rules"})
    (tmp_path / "current").symlink_to("workspace")
    assert read_file(tmp_path / "current", "AGENTS.md").text == "rules"


def test_cyclic_symlinks_are_refused_with_the_reason(write: Callable[..., Path]) -> None:
    root = write({})
    (root / "AGENTS.md").symlink_to("SOUL.md")
    (root / "SOUL.md").symlink_to("AGENTS.md")
    with pytest.raises(UnreadableFileError, match="leads back to itself"):
        read_file(root, "AGENTS.md")


def test_a_missing_file_is_told_apart_from_an_unusable_one(write: Callable[..., Path]) -> None:
    with pytest.raises(FileNotFoundError):
        read_file(write({}), "AGENTS.md")


def test_a_folder_in_the_place_of_a_file_is_refused(write: Callable[..., Path]) -> None:
    root = write({"AGENTS.md/x": "x"})
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_file(root, "AGENTS.md")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this platform")
def test_a_named_pipe_is_refused_without_waiting_for_a_writer(write: Callable[..., Path]) -> None:
    root = write({})
    os.mkfifo(root / "AGENTS.md")
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_file(root, "AGENTS.md")


def test_no_descriptor_stays_open_after_a_refusal(write: Callable[..., Path]) -> None:
    root = write({"AGENTS.md/x": "x", "SOUL.md": b"\xff"})
    before = len(list(Path("/dev/fd").iterdir()))
    for name in ("AGENTS.md", "SOUL.md") * 5:
        with pytest.raises(UnreadableFileError):
            read_file(root, name)
    assert len(list(Path("/dev/fd").iterdir())) <= before


@settings(max_examples=examples(50))
@example(content=b"\xef")
@example(content=b"\xef\xbb\xbf")
@given(content=st.binary(max_size=200))
def test_any_bytes_are_either_read_as_utf_8_or_refused(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    root = tmp_path_factory.mktemp("any")
    (root / "AGENTS.md").write_bytes(content)
    try:
        text = read_file(root, "AGENTS.md").text
    except UnreadableFileError:
        return
    expected = content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    assert text == expected
