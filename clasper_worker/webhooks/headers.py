"""The headers that a webhook's sender may add to it."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,128}")  # RFC 9110, 5.6.2: a token
_VALUE = re.compile(r"[!-~]([ \t!-~]*[!-~])?|")  # RFC 9110, 5.5, in ASCII
_MAX_HEADERS = 32
_MAX_CHARS = 8192

# What frames the message, says where it goes, or is ours to say.
_RESERVED = frozenset(
    {
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_RESERVED_PREFIXES = ("x-clasper-", "proxy-")


def check_headers(headers: Mapping[str, str]) -> None:
    """Check that the headers can be sent, and change nothing but what the receiver makes of them.

    Raises:
        ValueError: names the first that is not so; never its value, which may be a secret.
    """
    if len(headers) > _MAX_HEADERS:
        raise ValueError(f"are more than {_MAX_HEADERS}")
    if sum(len(name) + len(value) for name, value in headers.items()) > _MAX_CHARS:
        raise ValueError(f"have more than {_MAX_CHARS:,} characters in all")
    for name, value in headers.items():
        if not _NAME.fullmatch(name):
            raise ValueError("have a name that is not one of HTTP")
        if name.lower() in _RESERVED or name.lower().startswith(_RESERVED_PREFIXES):
            raise ValueError(f"must not set {name}, which the worker sets or HTTP needs")
        if not _VALUE.fullmatch(value):
            raise ValueError(f"have a value of {name} that is not one line of ASCII")
