"""The text of the scheduler's script. Its parts lie in ``scheduler/``, a file for each idea."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files

from clasper_worker.identifiers import BLANK

# Each uses functions of those before it: to Redis, and to Lua, they are one text.
_PARTS = (
    "base",
    "base64",
    "reading",
    "dead_letters",
    "ready",
    "intake",
    "lease",
    "ending",
    "lapsed",
    "cancelling",
    "operations",
)


@lru_cache(maxsize=1)
def script_text() -> str:
    """The whole script."""
    folder = files("clasper_worker.broker").joinpath("scheduler")
    blank = ", ".join(str(point) for bounds in BLANK for point in bounds)
    parts = (folder.joinpath(f"{part}.lua").read_text("utf-8") for part in _PARTS)
    return "\n".join((f"local BLANK = {{ {blank} }}", *parts))
