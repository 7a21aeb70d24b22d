"""What this backend can do, and whether it is alive."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from clasper_worker.devkit.reference_backend.access import EITHER_TOKEN, BackendDep, EitherDep
from clasper_worker.devkit.reference_backend.answers import Capabilities, Health, shows
from clasper_worker.devkit.reference_backend.config import CONTRACT_VERSION

router = APIRouter(tags=["discovery"])


@router.get(
    "/api/capabilities",
    openapi_extra=EITHER_TOKEN,
    responses=shows(Capabilities),
    operation_id="capabilities_at_the_originals_place",
)
@router.get(
    "/api/mission-control/capabilities", openapi_extra=EITHER_TOKEN, responses=shows(Capabilities)
)
async def capabilities(backend: BackendDep, caller: EitherDep) -> Response:
    """The contract's version, and which features are on (either token)."""
    del caller
    return JSONResponse(backend.config.capabilities())


@router.get("/health", responses=shows(Health))
async def health(backend: BackendDep) -> Response:
    """Whether the backend and its database answer (no token)."""
    backend.store.read(
        lambda connection: connection.execute("SELECT 1 FROM tasks LIMIT 1").fetchone()
    )
    return JSONResponse({"status": "ok", "contract_version": CONTRACT_VERSION})
