from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clasper_worker.prompt.workspace.skills import Host, Skill, gate, this_host

PLAIN = Skill(name="s", description="d", instructions="i", file="skills/s/SKILL.md")


def reason(skill: Skill, host: Host) -> str | None:
    return gate([skill], host)[0].off_reason


def test_a_skill_that_requires_nothing_is_on(host: Host) -> None:
    assert reason(PLAIN, host) is None


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ({"requires_env": ("A", "B")}, "environment variable not set: A, B"),
        ({"requires_bins": ("sh", "nope")}, "program not on PATH: nope"),
        ({"requires_any_bins": ("no1", "no2")}, "none of these programs on PATH: no1, no2"),
        ({"os": ("darwin", "win32")}, "works on darwin, win32; this is linux"),
    ],
)
def test_a_skill_whose_requirement_is_not_met_is_off_with_the_reason(
    host: Host, requirement: dict[str, Any], expected: str
) -> None:
    assert reason(replace(PLAIN, **requirement), host) == expected


def test_a_skill_whose_requirements_are_met_is_on(host: Host) -> None:
    skill = replace(
        PLAIN,
        requires_env=("KEY",),
        requires_bins=("sh",),
        requires_any_bins=("nope", "sh"),
        os=("linux",),
    )
    assert reason(skill, replace(host, variables=frozenset({"KEY"}))) is None


def test_always_overrides_what_is_required_but_not_the_platform(host: Host) -> None:
    skill = replace(PLAIN, always=True, requires_env=("A",), requires_bins=("nope",))
    assert reason(skill, host) is None
    assert reason(replace(skill, os=("darwin",)), host) == "works on darwin; this is linux"


def test_a_skill_comes_on_again_when_its_requirement_is_met(host: Host) -> None:
    skill = replace(PLAIN, requires_env=("KEY",))
    (off,) = gate([skill], host)
    (on,) = gate([off], replace(host, variables=frozenset({"KEY"})))
    assert not off.enabled
    assert on.enabled


def test_a_program_is_looked_up_once_however_many_skills_require_it(host: Host) -> None:
    asked: list[str] = []
    counting = replace(host, which=asked.append)
    gate([replace(PLAIN, name=f"s{n}", requires_bins=("x",)) for n in range(9)], counting)
    assert asked == ["x"]


def test_a_variable_that_is_set_but_empty_counts_as_not_set() -> None:
    host = this_host({"EMPTY": "", "FULL": "secret"})
    assert host.variables == frozenset({"FULL"})
    assert "secret" not in repr(host)


def test_variables_of_the_env_file_count_as_our_settings_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FROM_PROCESS", "1")
    (tmp_path / ".env").write_text("FROM_FILE=1\nBLANK=\n")
    assert {"FROM_FILE", "FROM_PROCESS"} <= this_host().variables
    assert "BLANK" not in this_host().variables


def test_programs_are_found_on_the_path_that_is_given(tmp_path: Path) -> None:
    program = tmp_path / "my-tool"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    host = this_host({"PATH": str(tmp_path)})
    assert host.which("my-tool") == str(program)
    assert host.which("sh") is None
