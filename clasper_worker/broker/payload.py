"""What a consumer is shown of a delivery."""

from __future__ import annotations

from typing import Any

from celery.worker import state as worker_state
from kombu.utils.json import loads

from clasper_worker.broker.answers import Delivery
from clasper_worker.broker.collected import collected_requests
from clasper_worker.broker.delivery import (
    COLLECTED_HEADER,
    LEASE_HEADER,
    VERDICT_HEADER,
    WAITED_HEADER,
)
from clasper_worker.broker.task_message import modern


def payload_of(delivery: Delivery) -> dict[str, Any]:
    """The message as kombu delivers it, in protocol 2, with headers that tell of this delivery.

    kombu knows one encoding of bodies, and fails of any other name for one that is not encoded.

    Raises:
        Exception: it is none that can be read; of whatever kind.
    """
    payload: dict[str, Any] = modern(loads(delivery.raw.decode()))
    payload["properties"]["delivery_tag"] = delivery.token
    if payload["properties"].get("body_encoding") != "base64":
        payload["properties"]["body_encoding"] = None
    if not isinstance(payload["properties"].setdefault("delivery_info", {}), dict):
        raise TypeError("delivery_info is no object")
    headers = payload["headers"]
    for ours in (VERDICT_HEADER, COLLECTED_HEADER):
        headers.pop(ours, None)  # whatever its sender says of it
    headers[LEASE_HEADER] = delivery.token
    headers[WAITED_HEADER] = delivery.waited
    if delivery.is_redelivered:
        headers["redelivered"] = True
        payload["properties"]["delivery_info"]["redelivered"] = True
    if delivery.verdict:
        headers[VERDICT_HEADER] = delivery.verdict
    if delivery.collected:
        headers[COLLECTED_HEADER] = collected_requests(delivery.collected)
    return payload


def note_revoked(delivery: Delivery) -> None:
    """Have Celery take the job for revoked: it announces that, stores it, and settles it."""
    worker_state.revoked.add(modern(loads(delivery.raw.decode()))["headers"]["id"])
