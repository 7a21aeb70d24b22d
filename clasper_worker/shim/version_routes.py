"""``/api/version`` and ``/api/compatibility``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError

from clasper_worker import __version__
from clasper_worker.errors import BackendError, BackendNotFoundError, ConfigurationError
from clasper_worker.mission_control.models import REQUIRED_FEATURES, Capabilities
from clasper_worker.shim.backend_probe import (
    CONTRACT_VERSION,
    SUPPORTED_VERSIONS,
    backend_capabilities,
    problem_of,
)
from clasper_worker.shim.schemas import Compatibility, Version
from clasper_worker.shim.services import ShimServices

_SECONDS = 5.0
_FEATURES = ("send", "events", "llm_task", "compact", "usage", "workspace", "cancel")


def version_routes(services: ShimServices) -> APIRouter:
    """The routes that tell what this is, and whether the backend fits."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/api/version",
        operation_id="getVersion",
        summary="Versions of the program and of the contract",
        responses={200: {"model": Version}},
        response_model=None,
    )
    async def version() -> dict[str, Any]:
        return {
            "name": "clasper-worker",
            "version": __version__,
            "contract_version": CONTRACT_VERSION,
            "contract_versions": list(SUPPORTED_VERSIONS),
            "features": dict.fromkeys(_FEATURES, True),
        }

    @router.get(
        "/api/compatibility",
        operation_id="getCompatibility",
        summary="Whether the backend's contract version fits",
        responses={200: {"model": Compatibility}},
        response_model=None,
    )
    async def compatibility() -> dict[str, Any]:
        try:
            found = await backend_capabilities(services.settings, _SECONDS)
        except BackendNotFoundError as exc:  # turns go on without
            return _told("ok", Capabilities(features={}), problem_of(exc))
        except (BackendError, ConfigurationError, TimeoutError, ValidationError) as exc:
            return _told("unknown", None, problem_of(exc))
        if found.contract_version not in SUPPORTED_VERSIONS:
            supported = " and ".join(SUPPORTED_VERSIONS)
            problem = f"The backend speaks another contract version; supported are {supported}"
            return _told("incompatible", found, problem)
        missing = sorted(REQUIRED_FEATURES - found.offered)
        if missing:
            problem = f"The backend has switched off what turns need: {', '.join(missing)}"
            return _told("incompatible", found, problem)
        return _told("ok", found, None)

    return router


def _told(status: str, found: Capabilities | None, problem: str | None) -> dict[str, Any]:
    named = {} if found is None else dict.fromkeys(sorted(found.offered), True) | found.features
    return {
        "status": status,
        "compatible": {"ok": True, "incompatible": False}.get(status),
        "contract_version": None if found is None else found.contract_version,
        "supported_versions": list(SUPPORTED_VERSIONS),
        "features": named,
        "problem": problem,
    }
