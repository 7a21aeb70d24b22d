from collections.abc import Callable, Mapping
from pathlib import Path

import fakeredis
import pytest

from clasper_worker.errors import StateUnavailableError
from clasper_worker.prompt.workspace.reader import WorkspaceReader
from clasper_worker.prompt.workspace.skills import Host
from clasper_worker.prompt.workspace.snapshot import WorkspaceSnapshot
from clasper_worker.shim.boot import BootRecord

Read = Callable[[Mapping[str, str]], WorkspaceSnapshot]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def _read(files: Mapping[str, str]) -> WorkspaceSnapshot:
        for name, text in files.items():
            (tmp_path / name).write_text(text, "utf-8")
        reader = WorkspaceReader(tmp_path, Host("linux", frozenset(), lambda _: None))
        return reader.read(reader.look())

    return _read


@pytest.fixture
def record() -> BootRecord:
    return BootRecord(fakeredis.FakeAsyncRedis())


async def test_a_boot_that_was_completed_stays_so(record: BootRecord, read: Read) -> None:
    workspace = read({"BOOT.md": "Greet everybody."})
    before = await record.read("default", workspace)
    await record.complete("default", workspace)
    after = await record.read("default", workspace)
    assert (before.content, before.is_complete) == ("Greet everybody.", False)
    assert (after.content, after.is_complete) == ("Greet everybody.", True)


async def test_an_edited_boot_file_is_to_be_done_again(record: BootRecord, read: Read) -> None:
    await record.complete("default", read({"BOOT.md": "Greet everybody."}))
    assert not (await record.read("default", read({"BOOT.md": "Greet them all."}))).is_complete


async def test_workspaces_with_the_same_boot_text_are_completed_apart(
    record: BootRecord, read: Read
) -> None:
    workspace = read({"BOOT.md": "Greet everybody."})
    await record.complete("acme", workspace)
    assert not (await record.read("globex", workspace)).is_complete


@pytest.mark.parametrize("files", [{}, {"BOOT.md": " \n"}])
async def test_without_a_boot_file_there_is_nothing_to_complete(
    files: dict[str, str], record: BootRecord, read: Read
) -> None:
    workspace = read(files)
    await record.complete("default", workspace)
    boot = await record.read("default", workspace)
    assert (boot.content, boot.is_complete) == (None, False)


async def test_a_redis_that_does_not_answer_is_a_typed_error(read: Read) -> None:
    server = fakeredis.FakeServer()
    server.connected = False
    record = BootRecord(fakeredis.FakeAsyncRedis(server=server))
    workspace = read({"BOOT.md": "Greet everybody."})
    with pytest.raises(StateUnavailableError):
        await record.read("default", workspace)
    with pytest.raises(StateUnavailableError):
        await record.complete("default", workspace)
