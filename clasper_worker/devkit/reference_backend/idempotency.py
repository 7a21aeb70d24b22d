"""The same request under the same key has one effect and one answer (contract, "Idempotency").

Looking the key up, doing the work and remembering the answer are one transaction, and write
transactions are serial: of any number of equal requests at the same time, one does the work.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.devkit.reference_backend.records import JsonItem, now
from clasper_worker.devkit.reference_backend.schemas import KeyedBody
from clasper_worker.devkit.reference_backend.store import Transaction

_CREATED = 200  # the contract's answer to what creates, too


@dataclass(frozen=True, slots=True)
class Answer:
    """A response to be sent.

    Attributes:
        status: the HTTP status code.
        body: JSON; byte for byte the original one where the request is a repetition.
        replayed: whether it is a repetition, which changed nothing.
    """

    status: int
    body: str
    replayed: bool = False


def run_once(
    transaction: Transaction,
    user_id: str,
    endpoint: str,
    request: KeyedBody,
    work: Callable[[Transaction], JsonItem],
) -> Answer:
    """Do `work`, unless this tenant's same request under the same key has been done before.

    Args:
        transaction: what `work` and the memory of it are part of.
        user_id: the tenant that the key is scoped to.
        endpoint: method and path; the same key at another endpoint is another request.
        request: its key is optional; without one, `work` is done each time.
        work: makes the changes and returns the response's body. If it raises, nothing is
            remembered and the key stays free.

    Raises:
        ApiError: 409; the key was used with a different request.
    """
    key = request.idempotency_key
    if key is None:
        return Answer(_CREATED, _dump(work(transaction)))
    fingerprint = request.fingerprint(endpoint)
    known = transaction.execute(
        "SELECT fingerprint, status, body FROM idempotency WHERE user_id = ? AND key = ?",
        (user_id, key),
    ).fetchone()
    if known is not None:
        if known["fingerprint"] != fingerprint:
            raise ApiError(
                409,
                "This idempotency_key was used before with a different request; use a new key "
                "for a new request, and repeat an old one unchanged.",
                code="idempotency_conflict",
                details={"idempotency_key": key},
            )
        return Answer(known["status"], known["body"], replayed=True)
    answer = Answer(_CREATED, _dump(work(transaction)))
    transaction.execute(
        "INSERT INTO idempotency (user_id, key, fingerprint, status, body, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?)",
        (user_id, key, fingerprint, answer.status, answer.body, now()),
    )
    return answer


def _dump(body: JsonItem) -> str:
    return json.dumps(body, ensure_ascii=False, separators=(",", ":"))
