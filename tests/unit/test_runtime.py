"""What is checked before turns run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from clasper_worker.config.settings import Settings
from clasper_worker.engine.circuit.gates import Gates
from clasper_worker.errors import ConfigurationError, InvalidRequestError
from clasper_worker.llm.fallback import ModelChain
from clasper_worker.runtime import Runtime, check_settings

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


async def test_models_that_callers_name_leave_no_gate_behind(
    settings_of: Callable[..., Settings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Callers may name any number of models: a gate is kept as long as the process."""
    asked: list[tuple[str, ...]] = []
    real = Gates.gate

    def gate(self: Gates, url: str, *names: str) -> object:
        asked.append(names)
        return real(self, url, *names)

    monkeypatch.setattr(Gates, "gate", gate)
    runtime = await Runtime.open(
        settings_of(
            backend_url="http://backend.test",
            agent_jwt_secret=SECRET,
            openai_api_key="k",
            clasper_workspace=tmp_path,
            clasper_smart_context=False,
        )
    )
    try:
        asked.clear()
        for n in range(100):
            assert runtime.model_named(f"any-{n}") is not None
        assert len(asked) == 100
        assert set(asked) == {()}
        assert isinstance(runtime.model_named("cheap"), ModelChain)
        with pytest.raises(InvalidRequestError, match="model"):
            runtime.model_named("anthropic/any")
    finally:
        await runtime.close()
