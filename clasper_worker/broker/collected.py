"""The turns that are run together with another of their session (busy policy ``collect``)."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any


def collected_requests(raws: Iterable[bytes]) -> list[dict[str, Any]]:
    """What the collected messages ask for: each ``{"job_id", "request"}``, in order of arrival."""
    return [_request(json.loads(raw)) for raw in raws]


def _request(message: dict[str, Any]) -> dict[str, Any]:
    body = message["body"]
    if message["properties"].get("body_encoding") == "base64":
        body = base64.b64decode(body)
    _, kwargs, *_ = json.loads(body)
    return {"job_id": message["headers"]["id"], "request": kwargs}
