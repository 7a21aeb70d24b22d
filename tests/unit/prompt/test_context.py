from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from clasper_worker.config.settings import Settings, load_settings
from clasper_worker.errors import ConfigurationError
from clasper_worker.prompt.context import AgentContext, prompt_settings
from clasper_worker.prompt.retrieval.selection import SmartLimits

LLM = openai.AsyncOpenAI(api_key="any", base_url="http://127.0.0.1:9/v1")


@pytest.fixture
def opened(tmp_path: Path, settings_of: Callable[..., Settings]) -> Callable[..., AgentContext]:
    (tmp_path / "SOUL.md").write_text("soul")

    def _opened(**given: object) -> AgentContext:
        return AgentContext.open(settings_of(clasper_workspace=tmp_path, **given), LLM)

    return _opened


def test_smart_context_is_off_unless_it_is_switched_on(
    opened: Callable[..., AgentContext],
) -> None:
    context = opened()
    assert context.smart is None
    assert context.workspaces.snapshot(None, "u").text("SOUL.md") == "soul"
    context.close()


@pytest.mark.parametrize(
    ("given", "ranker"),
    [
        ({}, None),
        (
            {"clasper_embedding_provider": "local"},
            "local:sentence-transformers/all-MiniLM-L6-v2",
        ),
        ({"clasper_embedding_provider": "openai"}, "openai:text-embedding-3-small"),
        (
            {"clasper_embedding_provider": "openai", "clasper_embedding_model": "other"},
            "openai:other",
        ),
    ],
)
def test_the_settings_choose_the_ranker(
    given: dict[str, object], ranker: str | None, opened: Callable[..., AgentContext]
) -> None:
    context = opened(clasper_smart_context=True, **given)
    assert context.smart is not None
    assert context.smart.ranker == (ranker or "bm25")
    context.close()


def test_limits_come_from_the_settings(settings_of: Callable[..., Settings]) -> None:
    settings = settings_of(
        clasper_smart_context_max_skills=1,
        clasper_smart_context_max_memory=2,
        clasper_smart_context_max_tokens=3,
        clasper_default_timezone="Asia/Tokyo",
    )
    assert prompt_settings(settings).smart_limits == SmartLimits(1, 2, 3)
    assert prompt_settings(settings).timezone == "Asia/Tokyo"


def test_workspaces_are_read_by_name_and_path(settings_of: Callable[..., Settings]) -> None:
    settings = settings_of(clasper_workspaces=" acme = ./a, b=/srv/b ,")
    assert settings.clasper_workspaces == {"acme": Path("a"), "b": Path("/srv/b")}


@pytest.mark.parametrize("value", ["acme", "=x", "a=", "a/b=x", "default=x", "a=x,a=y"])
def test_a_list_of_workspaces_that_makes_no_sense_is_an_error_that_names_the_variable(
    value: str,
) -> None:
    with pytest.raises(ConfigurationError, match="CLASPER_WORKSPACES"):
        load_settings(clasper_workspaces=value, _env_file=None)
