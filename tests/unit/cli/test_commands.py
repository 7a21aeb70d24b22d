"""What every command of ``clasper`` keeps to."""

from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from clasper_worker import cli as package
from clasper_worker.cli import COMMANDS, cli


@pytest.mark.parametrize("name", COMMANDS)
def test_its_help_says_what_it_does_and_has_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0
    assert COMMANDS[name][1].endswith(".")
    assert f"clasper {name}" in result.output.partition("\n")[2]


def test_every_command_of_the_package_is_registered() -> None:
    files = {file.stem for file in Path(package.__file__).parent.glob("[!_]*.py")}
    modules = {name: import_module(f"{package.__name__}.{name}") for name in files}
    with_command = {
        name for name, one in modules.items() if isinstance(vars(one).get("command"), click.Command)
    }
    assert with_command == {module for module, _ in COMMANDS.values()}
