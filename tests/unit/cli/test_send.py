"""``clasper send`` as far as it goes without a broker; the rest is an integration test."""

import pytest
from click.testing import CliRunner

from clasper_worker.cli import cli
from clasper_worker.config.settings import get_settings
from clasper_worker.errors import ClasperError, ConfigurationError


@pytest.fixture(autouse=True)
def fresh_settings() -> object:
    get_settings.cache_clear()
    yield
    get_settings.cache_clear()


def error_of(*arguments: str) -> ClasperError:
    result = CliRunner().invoke(cli, ["send", *arguments])
    assert result.exit_code != 0
    assert isinstance(result.exception, ClasperError)
    return result.exception


def test_without_a_user_the_option_and_the_variable_are_named() -> None:
    error = error_of("Hello")
    assert isinstance(error, ConfigurationError)
    assert "--user" in str(error)
    assert error.details["variable"] == "USER_ID"


def test_http_without_an_address_names_the_variable() -> None:
    error = error_of("--http", "--user", "u1", "Hello")
    assert isinstance(error, ConfigurationError)
    assert error.details["variable"] == "AGENT_DAEMON_URL"


@pytest.mark.parametrize("metadata", ["{", "[]", "1"])
def test_metadata_that_is_no_object_is_refused(metadata: str) -> None:
    result = CliRunner().invoke(cli, ["send", "--user", "u1", "--metadata", metadata, "Hello"])
    assert result.exit_code == 2
    assert "--metadata" in result.output


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "send",
        "dispatch",
        "heartbeat",
        "standup",
        "cancel",
        "dead-letters",
        "dead-letters list",
        "dead-letters show",
        "dead-letters replay",
        "dead-letters drop",
        "worker",
        "beat",
        "serve",
        "backend",
        "conformance",
        "offline-model",
        "init",
    ],
)
def test_every_command_has_help_with_an_example(command: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), "--help"])
    assert result.exit_code == 0
    assert "Example" in result.output
