"""The environment of a world of its own: nothing in it names a server, a key or a proxy.

``make demo`` and the tests start processes that must never reach what this machine is configured
for. What they inherit is therefore chosen by name; whatever else is set, now or in a later release
of a library, stays out.
"""

from __future__ import annotations

from collections.abc import Mapping

# Where programs and libraries are, and how people want to be shown things.
_KEPT = frozenset(
    {
        "COLORTERM",
        "COLUMNS",
        "DYLD_LIBRARY_PATH",
        "FORCE_COLOR",
        "HOME",
        "LANG",
        "LANGUAGE",
        "LD_LIBRARY_PATH",
        "LINES",
        "LOGNAME",
        "NO_COLOR",
        "PATH",
        "SHELL",
        "SYSTEMROOT",
        "TEMP",
        "TERM",
        "TMP",
        "TMPDIR",
        "TZ",
        "USER",
        "VIRTUAL_ENV",
    }
)
_KEPT_PREFIXES = ("LC_",)


def bare_environment(inherited: Mapping[str, str], *prefixes: str) -> dict[str, str]:
    """What a process of such a world may inherit.

    Args:
        inherited: the environment of this process.
        prefixes: of further names that are kept.
    """
    kept_prefixes = (*_KEPT_PREFIXES, *prefixes)
    return {
        name: value
        for name, value in inherited.items()
        if name in _KEPT or name.startswith(kept_prefixes)
    }
