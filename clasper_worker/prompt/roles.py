"""What an agent's role may be called: a role names a file, ``souls/<role>.md``."""

from __future__ import annotations

import re

ROLE_PATTERN = r"[A-Za-z0-9_-]{1,64}"
"""The contract's form of a role (Part 2, "The send request"), without anchors."""

_ROLE = re.compile(ROLE_PATTERN)


def validate_role(role: str) -> str:
    """Return ``role`` if it can name an agent, so that it can never name another file.

    Raises:
        ValueError: it is not 1 to 64 ASCII letters, digits, ``_`` or ``-``.
    """
    if _ROLE.fullmatch(role) is None:
        raise ValueError("a role must be 1 to 64 letters, digits, '_' or '-': it names a file")
    return role
