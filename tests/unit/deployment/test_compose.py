"""``compose.yaml``: what it says, as far as that can be told without a container engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from clasper_worker.cli import cli
from clasper_worker.config.settings import Settings

REPO = Path(__file__).parents[3]
SCRIPT = REPO / "docker" / "with-stand-ins.sh"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((REPO / "compose.yaml").read_text("utf-8"))["services"]
    return found


def test_the_file_is_valid_by_the_schema_of_compose() -> None:
    arguments = ["--builtin-schema", "vendor.compose-spec", str(REPO / "compose.yaml")]
    done = subprocess.run(
        [sys.executable, "-m", "check_jsonschema", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_stand_ins_run_in_their_profile_alone(services: dict[str, Any]) -> None:
    profiles = {name: service.get("profiles") for name, service in services.items()}
    assert {name for name, given in profiles.items() if given == ["stand-ins"]} == {
        "backend",
        "model",
    }
    assert {name for name, given in profiles.items() if given is None} == {
        "redis", "worker", "beat", "shim", "flower"
    }  # fmt: skip
    needed = services["worker"]["depends_on"]
    assert needed["redis"] == {"condition": "service_healthy"}
    assert not needed["backend"]["required"]
    assert not needed["model"]["required"]


def test_whatever_is_published_is_this_machines_alone(services: dict[str, Any]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert any(port.endswith(":6379") for port in ports)
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_env_file_is_read_and_nothing_that_it_names_is_overridden(
    services: dict[str, Any],
) -> None:
    """But for what is inside of the container alone."""
    inside = {"CLASPER_HOST", "CLASPER_PORT", "CLASPER_STATE_DIR", "CLASPER_WORKSPACE"}
    ours = {name.upper() for name in Settings.model_fields}
    for name in ("worker", "beat", "shim", "flower"):
        assert services[name]["env_file"] == [{"path": ".env", "required": False}]
        for variable, value in services[name]["environment"].items():
            assert variable in ours
            assert variable in inside or value.startswith(f"${{{variable}:-"), variable


@pytest.mark.parametrize("name", ["worker", "beat", "shim", "flower", "backend", "model"])
def test_each_command_takes_its_options(services: dict[str, Any], name: str) -> None:
    program, *arguments = services[name]["command"]
    if program == "clasper":
        assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0
    else:
        done = subprocess.run(
            [sys.executable, "-m", program, *arguments, "--help"], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr


def run_in_container(folder: Path, *reachable: str, **variables: str) -> dict[str, str]:
    """What a command sees that is called as in a container, beside the services named."""
    (folder / "bin").mkdir()
    (folder / "path").mkdir()
    (folder / "bin" / "clasper").write_text('#!/bin/sh\nenv\necho "ARGUMENTS=$*"\n')
    names = "|".join(reachable) or "nobody"
    getent = f'#!/bin/sh\ncase "$2" in {names}) exit 0;; *) exit 2;; esac\n'
    (folder / "path" / "getent").write_text(getent)
    wrapper = folder / "clasper"
    wrapper.write_text(SCRIPT.read_text("utf-8"))
    for program in (folder / "bin" / "clasper", folder / "path" / "getent", wrapper):
        program.chmod(0o755)
    done = subprocess.run(
        [wrapper, "send", "a b"],
        env={"PATH": f"{folder}/path:/usr/bin:/bin", "VENV": str(folder), **variables},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def test_a_command_of_exec_sees_the_stand_ins_as_the_services_do(tmp_path: Path) -> None:
    seen = run_in_container(tmp_path, "backend", "model", BACKEND_URL="")
    assert seen["ARGUMENTS"] == "send a b"
    assert seen["BACKEND_URL"] == "http://backend:9001"
    assert seen["OPENAI_BASE_URL"] == "http://model:9100/v1"
    assert len(seen["AGENT_JWT_SECRET"]) >= 32


def test_what_is_configured_has_no_stand_in(tmp_path: Path) -> None:
    own = {"BACKEND_URL": "http://own", "OPENAI_API_KEY": "sk-own"}
    seen = run_in_container(tmp_path, "backend", "model", **own)
    assert {name: seen[name] for name in own} == own
    assert "AGENT_JWT_SECRET" not in seen
    assert "OPENAI_BASE_URL" not in seen


def test_outside_of_the_profile_nothing_stands_in(tmp_path: Path) -> None:
    """So that the worker says at its start what is not configured."""
    seen = run_in_container(tmp_path)
    assert "BACKEND_URL" not in seen
    assert "OPENAI_API_KEY" not in seen
