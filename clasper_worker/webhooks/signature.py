"""The signature of a webhook: made by the worker, checked by whoever receives it.

``X-Clasper-Signature: t=<unix seconds>,v1=<hex HMAC-SHA256 of "<t>.<body>">``, the key being the
secret's UTF-8 bytes. The time is part of what is signed, so that an old request cannot be sent
again later. This module needs the standard library alone.
"""

from __future__ import annotations

import hashlib
import hmac
import time

SIGNATURE_HEADER = "X-Clasper-Signature"
OLD_SIGNATURE_HEADER = "X-Wombat-Signature"
"""The same under the name that older receivers look for; with the plain signature alone."""
DEFAULT_TOLERANCE_SECONDS = 300.0
_MAX_HEADER_CHARS = 4096
_MAX_TIMESTAMP_DIGITS = 15


def sign(secret: str, body: bytes, timestamp: int) -> str:
    """Make the header's value.

    Args:
        secret: what sender and receiver share.
        body: the request's body, as sent.
        timestamp: the time of sending, in seconds since 1970.
    """
    return f"t={timestamp},v1={_digest(secret, body, str(timestamp))}"


def sign_plainly(secret: str, body: bytes) -> str:
    """The signature of the original, for its receivers: HMAC-SHA256 of the body alone, in hex."""
    return hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()


def verify_signature(
    secret: str,
    body: bytes,
    header: str | None,
    *,
    tolerance_seconds: float = DEFAULT_TOLERANCE_SECONDS,
    now: float | None = None,
) -> bool:
    """Whether a request was signed with the secret, and not long ago.

    A header with several ``v1`` is good if one of them is; parts of other names are ignored.

    Args:
        secret: what sender and receiver share.
        body: the request's body, byte for byte as received: before it is parsed.
        header: the value of ``X-Clasper-Signature``; None where the request has none.
        tolerance_seconds: how far the time of signing may lie from now, either way.
        now: the time to compare with, in seconds since 1970; the clock's when omitted.
    """
    if not secret or header is None or len(header) > _MAX_HEADER_CHARS:
        return False
    timestamps: list[str] = []
    digests: list[str] = []
    for part in header.split(","):
        name, _, value = part.strip().partition("=")
        if name == "t":
            timestamps.append(value)
        elif name == "v1":
            digests.append(value)
    if len(timestamps) != 1:
        return False
    (timestamp,) = timestamps
    if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < _MAX_TIMESTAMP_DIGITS):
        return False
    expected = _digest(secret, body, timestamp).encode()
    # Every digest is compared, in constant time: how long it takes tells nothing.
    matches = [hmac.compare_digest(expected, given.encode(errors="replace")) for given in digests]
    current = time.time() if now is None else now
    return any(matches) and abs(current - int(timestamp)) <= tolerance_seconds


def _digest(secret: str, body: bytes, timestamp: str) -> str:
    return hmac.new(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hexdigest()
