"""HTML that is escaped by construction: text becomes markup through `tag` alone."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_VOID = frozenset({"input", "link", "meta"})


class Html(str):
    """Markup, all of whose text is escaped."""

    __slots__ = ()


def tag(name: str, *children: str | None, attributes: Mapping[str, object] | None = None) -> Html:
    """An element.

    Args:
        name: of the element, from code alone.
        children: markup, and text, which is escaped; None is left out.
        attributes: name (from code alone) → value, which is escaped; True for one without a
            value, False and None for none.
    """
    shown = "".join(
        f" {key}" if value is True else f' {key}="{escape(str(value))}"'
        for key, value in (attributes or {}).items()
        if value is not None and value is not False
    )
    if name in _VOID:
        return Html(f"<{name}{shown}>")
    return Html(f"<{name}{shown}>{join(*children)}</{name}>")


def join(*children: str | None) -> Html:
    """Markup and text, one after another."""
    return Html(
        "".join(
            child if isinstance(child, Html) else escape(child)
            for child in children
            if child is not None
        )
    )
