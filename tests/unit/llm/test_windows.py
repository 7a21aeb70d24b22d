from collections.abc import Callable

from clasper_worker.config.settings import Settings
from clasper_worker.llm.tokens import DEFAULT_WINDOW
from clasper_worker.llm.windows import model_windows


def test_each_tier_has_the_window_of_its_model_and_its_fallback(
    settings_of: Callable[..., Settings],
) -> None:
    windows = model_windows(
        settings_of(llm_model_default="gpt-4.1", llm_model_cheap="mine", llm_model_best="o3")
    )
    assert windows["default"].tokens == 1_000_000
    assert windows["cheap"].tokens == DEFAULT_WINDOW
    assert windows["best"].tokens == 200_000
    smaller = model_windows(settings_of(llm_model_default="gpt-4.1", llm_model_fallback="gpt-4o"))
    assert smaller["default"].tokens == 128_000


def test_the_operators_window_comes_first_and_leaves_room_for_the_reply(
    settings_of: Callable[..., Settings],
) -> None:
    window = model_windows(settings_of(clasper_context_window_tokens=8_000))["default"]
    assert (window.tokens, window.reply_tokens) == (8_000, 1_000)
    capped = model_windows(settings_of(clasper_llm_max_output_tokens=300))["default"]
    assert capped.reply_tokens == 300


def test_tiers_with_one_model_count_together(settings_of: Callable[..., Settings]) -> None:
    windows = model_windows(settings_of())
    assert windows["default"].counter is windows["best"].counter
