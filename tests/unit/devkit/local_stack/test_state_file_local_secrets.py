"""Secrets of the local stack's own backend."""

import stat
from pathlib import Path

import pytest

from clasper_worker.devkit.local_stack.state_file import local_secrets
from clasper_worker.errors import StackError


def test_secrets_stay_the_same_from_start_to_start(tmp_path: Path) -> None:
    assert local_secrets(tmp_path) == local_secrets(tmp_path)


def test_each_folder_has_its_own_long_secrets(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()

    a, b = local_secrets(tmp_path / "a"), local_secrets(tmp_path / "b")

    made = {a.agent_jwt_secret, a.internal_api_token, b.agent_jwt_secret, b.internal_api_token}
    assert len(made) == 4
    assert {len(secret) for secret in made} == {64}


def test_only_the_owner_may_read_them(tmp_path: Path) -> None:
    local_secrets(tmp_path)

    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_they_do_not_show_in_a_repr(tmp_path: Path) -> None:
    made = local_secrets(tmp_path)

    assert made.agent_jwt_secret not in repr(made)
    assert made.internal_api_token not in repr(made)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"AGENT_JWT_SECRET": "x"}', "\x80"])
def test_a_damaged_file_is_a_clear_error_without_its_content(tmp_path: Path, content: str) -> None:
    (tmp_path / "secrets.json").write_text(content, "latin-1")

    with pytest.raises(StackError, match=r"secrets\.json cannot be read"):
        local_secrets(tmp_path)
