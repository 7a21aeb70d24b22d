"""Every setting, read from the environment, a ``.env`` file, or a local stack that is running.

Names are the contract's, in lower case: ``BACKEND_URL`` is ``settings.backend_url``. Precedence:
real environment variables, then ``.env`` in the working directory, then what a running
``clasper up`` wrote to its state file, then the defaults here.
"""

from __future__ import annotations

import json
import os
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from clasper_worker.config.groups import (
    BackendGroup,
    ConformanceGroup,
    ModelsGroup,
    ObservabilityGroup,
    PeriodicGroup,
    QueueGroup,
    ShimGroup,
    TurnsGroup,
    WebhooksGroup,
    WorkspaceGroup,
)
from clasper_worker.config.values import bare_value
from clasper_worker.errors import ConfigurationError

STACK_FILE = "stack.json"


def read_running_stack(state_dir: Path) -> dict[str, Any] | None:
    """What a running ``clasper up`` wrote about itself, or None where none runs.

    The file holds ``pid``, ``environment`` (the variables its processes got) and ``urls``. A file
    whose process is gone is ignored: a killed stack must not redirect later commands.
    """
    try:
        stack: dict[str, Any] = json.loads((state_dir / STACK_FILE).read_text("utf-8"))
        os.kill(int(stack["pid"]), 0)
    except PermissionError:
        return stack
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return stack


class _RunningStackSource(PydanticBaseSettingsSource):
    """Settings of the ``clasper up`` that runs in this folder, if one does."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        del field
        return None, field_name, False

    def __call__(self) -> dict[str, Any]:
        # What the environment and .env say, which are read before.
        state_dir = Path(self.current_state.get("clasper_state_dir") or ".clasper")
        stack = read_running_stack(state_dir) or {}
        environment = {name.lower(): value for name, value in stack.get("environment", {}).items()}
        return {
            name: environment[name]
            for name in self.settings_cls.model_fields
            if name in environment
        }


# What CLASPER_COMPAT=original sets, where it is not set otherwise.
_ORIGINAL = {
    "clasper_lenient": True,
    "clasper_send_waits": 600.0,
    "clasper_send_streams": True,
    "clasper_webhook_signature": "plain",
}


class Settings(
    BackendGroup,
    QueueGroup,
    ModelsGroup,
    TurnsGroup,
    WorkspaceGroup,
    PeriodicGroup,
    WebhooksGroup,
    ShimGroup,
    ConformanceGroup,
    ObservabilityGroup,
    BaseSettings,
):
    """Clasper Worker's settings; ``.env.example`` explains each.

    A `Settings` is each of its groups, so it is handed on as it is to whatever takes a group.
    """

    model_config = SettingsConfigDict(
        env_file=".env",
        env_file_encoding="utf-8-sig",  # which has a byte order mark or none
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    clasper_state_dir: Path = Path(".clasper")

    @model_validator(mode="before")
    @classmethod
    def _for_original_clients(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("clasper_compat") != "original":
            return values
        return {**_ORIGINAL, **values}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Put a running local stack between ``.env`` and the defaults."""
        del file_secret_settings
        for source in (env_settings, dotenv_settings):
            if isinstance(source, EnvSettingsSource):
                # Here, so that a variable with nothing but blanks in it is one that is not set.
                named = {name: bare_value(value or "") for name, value in source.env_vars.items()}
                source.env_vars = {name: value for name, value in named.items() if value}
        stack = _RunningStackSource(settings_cls)
        return init_settings, env_settings, dotenv_settings, stack


def load_settings(**overrides: Any) -> Settings:
    """Read the settings, or say which variable is wrong.

    Raises:
        ConfigurationError: a variable's value cannot be used; names the variable, not its value.
    """
    try:
        return Settings(**overrides)
    except ValidationError as exc:
        problems = [
            {
                "variable": str(error["loc"][0]).upper(),
                "problem": error["msg"].removeprefix("Value error, "),
            }
            for error in exc.errors(include_input=False, include_url=False)
        ]
        text = "; ".join(f"{item['variable']}: {item['problem']}" for item in problems)
        raise ConfigurationError(
            f"Check these settings (environment or .env): {text}", {"problems": problems}
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(
            "The file .env is not UTF-8 text: save it as UTF-8", {"variable": ".env"}
        ) from None


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The process's settings, read once."""
    return load_settings()
