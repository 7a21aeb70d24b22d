"""Percentiles."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least ``share`` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * share / 100) - 1, 0)]


def in_ms(seconds: Sequence[float], *shares: float) -> dict[str, float]:
    """Percentiles in milliseconds, by name: ``p50``."""
    return {f"p{share:g}": round(percentile(seconds, share) * 1000, 2) for share in shares}
