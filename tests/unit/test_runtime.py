"""What is checked before turns run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.errors import ConfigurationError
from clasper_worker.runtime import check_settings

SECRET = "a-secret-of-at-least-32-characters"


def test_waiting_for_a_host_must_end_before_the_turn_does(
    settings_of: Callable[..., Settings], tmp_path: Path
) -> None:
    given = {
        "backend_url": "http://backend.test",
        "agent_jwt_secret": SECRET,
        "openai_api_key": "k",
        "clasper_workspace": tmp_path,
        "clasper_turn_soft_limit_sec": 100,
    }
    assert settings_of(**given).outage_wait_sec == 80
    check_settings(settings_of(**given, clasper_outage_wait_sec=99))
    with pytest.raises(ConfigurationError, match="CLASPER_OUTAGE_WAIT_SEC"):
        check_settings(settings_of(**given, clasper_outage_wait_sec=100))
