"""What every endpoint asks for: the backend behind the request, and who is calling."""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from fastapi.openapi.models import APIKey
from fastapi.responses import JSONResponse
from fastapi.security.base import SecurityBase
from pydantic import AfterValidator

from clasper_worker.devkit.reference_backend.auth import Agent, TokenVerifier
from clasper_worker.devkit.reference_backend.config import BackendConfig
from clasper_worker.devkit.reference_backend.errors import ApiError
from clasper_worker.devkit.reference_backend.events import Wakeups
from clasper_worker.devkit.reference_backend.idempotency import run_once
from clasper_worker.devkit.reference_backend.page.worker import Worker
from clasper_worker.devkit.reference_backend.records import JsonItem
from clasper_worker.devkit.reference_backend.schemas import KeyedBody
from clasper_worker.devkit.reference_backend.store import Store, Transaction


@dataclass(frozen=True, slots=True)
class Backend:
    """One reference backend: its settings and its parts."""

    config: BackendConfig
    store: Store
    tokens: TokenVerifier
    wakeups: Wakeups
    worker: Worker

    def answer(self, query: Callable[[sqlite3.Connection], JsonItem]) -> Response:
        """Answer with what `query` reads."""
        return JSONResponse(self.store.read(query))

    async def change(self, work: Callable[[Transaction], JsonItem]) -> Response:
        """Do `work` in one transaction and answer with what it returns."""
        return JSONResponse(await self.store.write(work))

    async def change_once(
        self,
        request: Request,
        user_id: str,
        body: KeyedBody,
        work: Callable[[Transaction], JsonItem],
    ) -> Response:
        """Do `work` in one transaction, once for each idempotency key of this tenant.

        A repetition gets the original response, marked ``Idempotent-Replayed: true``.

        Raises:
            ApiError: what `work` raises, and 409 for a key that another request has used.
        """
        endpoint = f"{request.method} {request.url.path}"
        answer = await self.store.write(
            lambda transaction: run_once(transaction, user_id, endpoint, body, work)
        )
        return Response(
            answer.body,
            status_code=answer.status,
            media_type="application/json",
            headers={"Idempotent-Replayed": "true"} if answer.replayed else None,
        )


async def _backend(request: Request) -> Backend:
    backend: Backend = request.app.state.backend
    return backend


class _AgentToken(SecurityBase):
    model = APIKey.model_validate(
        {"in": "header", "name": "X-Agent-Token", "description": "An agent's JWT."}
    )
    scheme_name = "agent"

    async def __call__(self, request: Request) -> Agent:
        backend = await _backend(request)
        return backend.tokens.agent(request.headers.get("X-Agent-Token"))


class _InternalToken(SecurityBase):
    model = APIKey.model_validate(
        {"in": "header", "name": "X-Internal-Token", "description": "INTERNAL_API_TOKEN."}
    )
    scheme_name = "internal"

    async def __call__(self, request: Request) -> None:
        backend = await _backend(request)
        backend.tokens.internal(request.headers.get("X-Internal-Token"))


_agent_token = _AgentToken()
_internal_token = _InternalToken()


async def _either(request: Request) -> Agent | None:
    if "X-Internal-Token" in request.headers:
        await _internal_token(request)
        return None
    return await _agent_token(request)


BackendDep = Annotated[Backend, Depends(_backend)]

AgentDep = Annotated[Agent, Depends(_agent_token)]
"""The calling agent (401 without a good ``X-Agent-Token``)."""

InternalOnly = Depends(_internal_token)
"""401 without a good ``X-Internal-Token``."""

EitherDep = Annotated[Agent | None, Depends(_either)]
"""The calling agent, or None for a caller with the internal token, who acts for any tenant."""

EITHER_TOKEN: dict[str, Any] = {"security": [{"agent": []}, {"internal": []}]}
"""For /docs (``openapi_extra``), which cannot see into `EitherDep`."""

MAX_LIMIT = 100

Limit = Annotated[
    int,
    Query(description=f"Items on a page, at most; from 1 to {MAX_LIMIT}, others are clamped."),
    AfterValidator(lambda limit: min(max(limit, 1), MAX_LIMIT)),
]
Cursor = Annotated[str | None, Query(description="A next_cursor from the page before.")]


def feature(name: str) -> Callable[[Request], Awaitable[None]]:
    """A dependency that answers 404 ``feature_disabled`` while feature `name` is off."""

    async def require(request: Request) -> None:
        if not (await _backend(request)).config.has(name):
            raise ApiError(
                404,
                f"The feature {name} is off on this backend.",
                code="feature_disabled",
                details={"feature": name},
            )

    return require


def own_tenant(agent: Agent, user_id: str) -> None:
    """Check that a body speaks of the caller's own tenant.

    Raises:
        ApiError: 403; it names another user than the token does.
    """
    if user_id != agent.user_id:
        raise ApiError(
            403, "user_id is not the agent token's; an agent acts for its own user only."
        )
