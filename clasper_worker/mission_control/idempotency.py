"""Idempotency keys: what makes a repeated POST the same POST (contract Part 1, "Idempotency").

Every key is a digest over the user's id and what is being done, so that a key never means the
same thing for two users, whatever the backend's own scoping.
"""

from __future__ import annotations

import hashlib


def turn_step_key(user_id: str, turn_id: str, step: str) -> str:
    """The key of one POST of one turn; ``step`` names it within the turn, e.g. ``reply``."""
    return f"clasper-{step.partition(':')[0]}-{_digest(user_id, turn_id, step)}"


def task_title_key(user_id: str, title: str) -> str:
    """The key under which a user's task of this title is made, by whichever turn comes first."""
    return f"clasper-task-{_digest(user_id, title)}"


def _digest(*parts: str) -> str:
    # Each part's length goes in, so that ("ab", "c") and ("a", "bc") differ.
    text = "".join(f"{len(part)}:{part}" for part in parts)
    return hashlib.sha256(text.encode()).hexdigest()[:40]
