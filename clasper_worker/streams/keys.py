"""Where a turn's stream lies in Redis."""

from __future__ import annotations

KEPT_SECONDS = 3600
"""How long a stream is kept after its turn's end."""
MOST_BYTES = 4 * 1024 * 1024
"""What a stream takes at most; text beyond that comes whole at the end."""


def stream_key(turn_id: str) -> str:
    """The turn's events: a Redis stream, whose entries hold arrays of them in the field ``e``."""
    return f"clasper:stream:{turn_id}"


def run_key(turn_id: str) -> str:
    """What is known of the turn's newest run: see ``append.lua``."""
    return f"clasper:stream-run:{turn_id}"


def job_key(job_id: str) -> str:
    """The turn that a job asks for."""
    return f"clasper:job:{job_id}"
