"""What clients of the original need, each switched on by a setting (``CLASPER_COMPAT``)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import Request

from clasper_worker.shim.http import ApiProblem
from clasper_worker.text.bounds import shortened
from clasper_worker.turn.request import HistoryMessage, SendRequest, Webhook

_MAX_NAMED = 20
_NAME_CHARS = 60


def without_unknown(body: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A send request's known fields, and a warning for each other one (``CLASPER_LENIENT``)."""
    unknown: list[str] = []
    kept = _known(body, SendRequest.model_fields, "", unknown)
    if isinstance(kept.get("webhook"), dict):
        kept["webhook"] = _known(kept["webhook"], Webhook.model_fields, "webhook.", unknown)
    if isinstance(kept.get("messages"), list):
        kept["messages"] = [
            _known(item, HistoryMessage.model_fields, "messages.", unknown)
            if isinstance(item, dict)
            else item
            for item in kept["messages"]
        ]
    named = list(dict.fromkeys(unknown))
    return kept, [f"{name}: is no field and was left out" for name in named[:_MAX_NAMED]]


def _known(
    value: Mapping[str, Any], fields: Iterable[str], prefix: str, unknown: list[str]
) -> dict[str, Any]:
    known = set(fields)
    unknown += [f"{prefix}{shortened(name, _NAME_CHARS)}" for name in value if name not in known]
    return {name: item for name, item in value.items() if name in known}


def take_key_header(request: Request, body: dict[str, Any]) -> None:
    """Take ``Idempotency-Key`` for the body's ``idempotency_key``.

    Raises:
        ApiProblem: 400, both are given and differ.
    """
    header = request.headers.get("idempotency-key")
    if header is None:
        return
    given = body.get("idempotency_key")
    if given is not None and given != header:
        raise ApiProblem(
            400,
            "invalid_request",
            "idempotency_key: is not the same as the header Idempotency-Key: send one of them",
        )
    body["idempotency_key"] = header
