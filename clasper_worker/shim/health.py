"""``GET /health``: whether the shim is alive, and what it depends on."""

from __future__ import annotations

from typing import Any

import httpx2
from fastapi import APIRouter

from clasper_worker import __version__
from clasper_worker.http_client import open_http_client
from clasper_worker.http_redirects import is_redirect
from clasper_worker.settings import Settings
from clasper_worker.shim.services import ShimServices


def health_routes(services: ShimServices) -> APIRouter:
    """The health route; it needs no key, since load balancers have none."""
    router = APIRouter()

    @router.get("/health", summary="Whether the shim is alive; `deep` asks what it depends on")
    async def health(*, deep: bool = False) -> dict[str, Any]:
        if not deep:
            return {"status": "ok", "version": __version__}
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
