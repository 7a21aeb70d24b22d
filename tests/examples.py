"""How many examples a hypothesis test of its own number tries in the profile that is loaded."""

from hypothesis import settings

FULL = 100


def examples(number: int) -> int:
    """The number, in the profile's proportion to the full one; `make test` asks for fewer."""
    return max(1, number * settings.default.max_examples // FULL)  # type: ignore[union-attr]
