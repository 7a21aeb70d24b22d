"""JSON that takes too long to read: a whole process waits while it is read, its event loop too.

Python reads JSON texts of 5 MB in 10 to 20 ms if they are mostly text, and in 200 ms and more if
they are made of small values. The second is found out without reading it.
"""

from __future__ import annotations

MAX_VALUES = 250_000
"""About as many values are read in 50 ms."""

_CERTAINLY_QUICK_BYTES = 512 * 1024


def has_too_many_values(body: bytes) -> bool:
    """Whether a JSON text holds more values than can be read at once."""
    if len(body) <= _CERTAINLY_QUICK_BYTES:
        return False
    if body.count(b'"') - body.count(b'\\"') > 2 * MAX_VALUES:
        return True
    # Prose, code and tables have commas and brackets too: only then they are told apart.
    return _separators(body) > MAX_VALUES and _separators(_without_texts(body)) > MAX_VALUES


def _without_texts(body: bytes) -> bytes:
    plain = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(plain.split(b'"')[::2])


def _separators(body: bytes) -> int:
    return sum(map(body.count, (b",", b"{", b"[")))
