"""``GET /health``: whether the shim is alive, and what it depends on."""

from __future__ import annotations

from typing import Annotated, Any

import httpx2
from fastapi import APIRouter, Query, Request

from clasper_worker import __version__
from clasper_worker.http_client import open_http_client
from clasper_worker.http_redirects import is_redirect
from clasper_worker.settings import Settings
from clasper_worker.shim.auth import DaemonKey
from clasper_worker.shim.description import problems
from clasper_worker.shim.schemas import Health
from clasper_worker.shim.services import ShimServices


def health_routes(services: ShimServices) -> APIRouter:
    """The health route; shallow it needs no key, since load balancers have none."""
    router = APIRouter()
    key = DaemonKey(services.settings.daemon_api_keys, as_password=True)

    @router.get(
        "/health",
        operation_id="getHealth",
        tags=["operations"],
        summary="Whether the shim is alive; deep asks what it depends on, and wants the key",
        responses={200: {"model": Health}, **problems(400, 401)},
        response_model=None,
    )
    async def health(
        request: Request,
        *,
        deep: Annotated[bool, Query(description="Ask Redis and the backend.")] = False,
    ) -> dict[str, Any]:
        if not deep:
            return {"status": "ok", "version": __version__}
        key(request)
        checks = {
            "redis": await services.register.reachable(),
            "backend": await _backend_answers(services.settings),
        }
        status = "ok" if all(checks.values()) else "degraded"
        return {"status": status, "version": __version__, "checks": checks}

    return router


async def _backend_answers(settings: Settings) -> bool:
    if settings.backend_url is None:
        return False
    url = f"{settings.backend_url}/api/mission-control/capabilities"
    try:
        async with open_http_client(3.0, settings.backend_url) as http:
            answer = await http.get(url)
    except httpx2.HTTPError:
        return False
    # 401 without a token: it is there. A redirect that is not followed fails every turn.
    return answer.status_code < 500 and not is_redirect(answer.status_code)
