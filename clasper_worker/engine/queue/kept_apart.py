"""Webhooks of dead letters: kept apart from the letters, and not for as long.

A webhook's secret, headers and address open doors at its receiver, and a dead letter lies until
somebody decides about it. So the letter holds the receiver's host alone; the webhook lies in a key
of its own that expires with the life of a delivery.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from kombu.compression import decompress

_MARK = "kept_apart"


def take_apart(raw: bytes) -> tuple[bytes, str] | None:
    """A message without its webhook, and the webhook; None where it has none to take."""
    read = _read(raw)
    if read is None:
        return None
    message, body = read
    webhook = body[1].get("webhook")
    if webhook is None or _is_mark(webhook):
        return None
    body[1]["webhook"] = {_MARK: _host(webhook)}
    return _written(message, body), json.dumps(webhook)


def is_apart(raw: bytes) -> bool:
    """Whether the message's webhook was taken from it."""
    read = _read(raw)
    return read is not None and _is_mark(read[1][1].get("webhook"))


def put_together(raw: bytes, webhook: str | None) -> bytes:
    """The message with its webhook again; without any for None."""
    read = _read(raw)
    if read is None:
        return raw
    message, body = read
    if webhook is None:
        body[1].pop("webhook", None)
    else:
        body[1]["webhook"] = json.loads(webhook)
    return _written(message, body)


def _read(raw: bytes) -> tuple[dict[str, Any], list[Any]] | None:
    try:
        message = json.loads(raw)
        body = message["body"]
        if message["properties"].get("body_encoding") == "base64":
            body = base64.b64decode(body)
        compression = message["headers"].get("compression")
        if compression:
            body = decompress(body, compression)
        parts = json.loads(body)
    except Exception:  # noqa: BLE001 - every compression has errors of its own
        return None
    is_task = isinstance(parts, list) and len(parts) > 1 and isinstance(parts[1], dict)
    return (message, parts) if is_task else None


def _written(message: dict[str, Any], body: list[Any]) -> bytes:
    message["body"] = base64.b64encode(json.dumps(body).encode()).decode()
    message["properties"]["body_encoding"] = "base64"
    message["headers"].pop("compression", None)
    return json.dumps(message).encode()


def _is_mark(webhook: Any) -> bool:
    return isinstance(webhook, Mapping) and set(webhook) == {_MARK}


def _host(webhook: Any) -> str:
    try:
        return urlsplit(webhook["url"]).hostname or ""
    except (TypeError, KeyError, ValueError, AttributeError):
        return ""
