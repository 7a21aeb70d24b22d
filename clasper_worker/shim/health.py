"""``/health`` and ``/ready``, for load balancers: open without the key, and never slow."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from clasper_worker import __version__
from clasper_worker.config.settings import Settings
from clasper_worker.engine.redis.connections import shown_url
from clasper_worker.prompt.workspace.files import MAX_FILE_CHARS
from clasper_worker.shim.auth import DaemonKey
from clasper_worker.shim.backend_probe import backend_answers
from clasper_worker.shim.description import problems
from clasper_worker.shim.http import ApiProblem
from clasper_worker.shim.readiness import PROBE_SECONDS, ReadinessProbe, within
from clasper_worker.shim.schemas import Health, Ready
from clasper_worker.shim.services import ShimServices


def health_routes(services: ShimServices) -> APIRouter:
    """The routes; shallow ones need no key, since load balancers have none."""
    router = APIRouter(tags=["operations"])
    key = DaemonKey(services.settings.daemon_api_keys, as_password=True)
    probe = ReadinessProbe(services.settings, services.client.app, services.register)

    @router.get(
        "/health",
        operation_id="getHealth",
        summary="Whether the shim is alive; deep asks what it depends on, and wants the key",
        responses={
            200: {"model": Health},
            503: {"model": Health, "description": "Deep: something does not answer"},
            **problems(400, 401),
        },
        response_model=None,
    )
    async def health(
        request: Request,
        response: Response,
        *,
        deep: Annotated[bool, Query(description="Ask Redis and the backend.")] = False,
    ) -> dict[str, Any]:
        settings = services.settings
        try:
            key(request)
        except ApiProblem:
            if deep:
                raise
            return {"status": "ok", "version": __version__}
        told = {"status": "ok", "version": __version__, **_configured(settings)}
        if not deep:
            return told
        redis, backend = await asyncio.gather(
            within(services.register.reachable(), PROBE_SECONDS),
            backend_answers(settings, PROBE_SECONDS),
        )
        told["backend"]["status"] = "ok" if backend else "error"
        told["checks"] = {"redis": bool(redis), "backend": backend}
        if not all(told["checks"].values()):
            told["status"] = "degraded"
            response.status_code = 503
        return told

    @router.get(
        "/ready",
        operation_id="getReadiness",
        summary="Whether turns that are sent now will be run",
        responses={200: {"model": Ready}, **problems(503)},
        response_model=None,
    )
    async def ready() -> dict[str, Any]:
        missing = (await probe.ask()).missing
        if missing:
            raise ApiProblem(
                503, "not_ready", f"Not ready; missing: {'; '.join(missing)}", {"missing": missing}
            )
        return {"status": "ready", "version": __version__}

    return router


def _configured(settings: Settings) -> dict[str, Any]:
    path = settings.clasper_workspace.absolute()
    return {
        "workspace": {
            "path": str(path),
            "status": "ok" if path.is_dir() else "missing",
            "maxCharsPerFile": MAX_FILE_CHARS,
        },
        "backend": {
            "url": settings.backend_url and shown_url(settings.backend_url),
            "status": "unchecked",
        },
        "config": {
            "port": settings.clasper_port,
            "defaultTask": settings.clasper_default_task,
            "model": settings.llm_model_default,
            "fallbackModel": settings.llm_model_fallback,
        },
    }
