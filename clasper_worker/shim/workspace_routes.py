"""``/skills``, ``/context`` and ``/boot``: what a workspace says, as this machine sees it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from clasper_worker.config.settings import Settings
from clasper_worker.errors import InvalidRequestError
from clasper_worker.prompt.roles import validate_role
from clasper_worker.prompt.workspace.workspaces import DEFAULT_NAME
from clasper_worker.shim.description import problems
from clasper_worker.shim.schemas import BootState, Context, ContextStats, Done, Skills
from clasper_worker.shim.services import IndexStats, ShimServices
from clasper_worker.shim.workspace_report import context_report, skills_report
from clasper_worker.turn.request import DEFAULT_ROLE

Name = Annotated[str | None, Query(description="A name of CLASPER_WORKSPACES; else the default.")]


def workspace_routes(services: ShimServices) -> APIRouter:
    """The routes about workspaces."""
    router = APIRouter(tags=["workspace"])

    @router.get(
        "/skills",
        operation_id="listSkills",
        summary="The workspace's skills, and why one is off",
        responses={200: {"model": Skills}, **problems(400, 500)},
        response_model=None,
    )
    async def skills(workspace: Name = None) -> dict[str, Any]:
        return skills_report(await services.workspaces.snapshot(workspace))

    @router.get(
        "/context",
        operation_id="getContext",
        summary="The workspace's files, and how much of each is told",
        responses={200: {"model": Context}, **problems(400, 500)},
        response_model=None,
    )
    async def context(
        role: Annotated[str, Query(description="The agent's role.")] = DEFAULT_ROLE,
        workspace: Name = None,
    ) -> dict[str, Any]:
        try:
            validate_role(role)
        except ValueError as exc:
            field = {"field": "role", "problem": str(exc), "fix": "use letters, digits, _ and -"}
            raise InvalidRequestError(f"role: {exc}", {"fields": [field]}) from None
        snapshot = await services.workspaces.snapshot(workspace)
        return context_report(snapshot, role, services.settings, datetime.now(UTC))

    @router.get(
        "/context/stats",
        operation_id="getContextStats",
        summary="What smart context chooses from",
        responses={200: {"model": ContextStats}, **problems(400, 500)},
        response_model=None,
    )
    async def stats(workspace: Name = None) -> dict[str, Any]:
        return _stats(await services.workspaces.stats(workspace), services.settings)

    @router.post(
        "/workspace/reindex",
        operation_id="reindexWorkspace",
        summary="Read the workspace's folder now, and index it anew",
        responses={200: {"model": ContextStats}, **problems(400, 500)},
        response_model=None,
    )
    async def reindex(workspace: Name = None) -> dict[str, Any]:
        return _stats(await services.workspaces.stats(workspace, anew=True), services.settings)

    @router.get(
        "/boot",
        operation_id="getBoot",
        summary="What is to be done once at first start, and whether it was",
        responses={200: {"model": BootState}, **problems(400, 500, 503)},
        response_model=None,
    )
    async def boot(workspace: Name = None) -> dict[str, Any]:
        snapshot = await services.workspaces.snapshot(workspace)
        found = await services.boots.read(workspace or DEFAULT_NAME, snapshot)
        return {
            "hasBoot": found.content is not None,
            "isComplete": found.is_complete,
            "content": found.content,
        }

    @router.post(
        "/boot/complete",
        operation_id="completeBoot",
        summary="Say that the present BOOT.md was carried out",
        responses={200: {"model": Done}, **problems(400, 500, 503)},
        response_model=None,
    )
    async def complete(workspace: Name = None) -> dict[str, str]:
        snapshot = await services.workspaces.snapshot(workspace)
        await services.boots.complete(workspace or DEFAULT_NAME, snapshot)
        return {"status": "ok"}

    return router


def _stats(stats: IndexStats, settings: Settings) -> dict[str, Any]:
    return {
        "indexedChunks": stats.skills + stats.memory_chunks,
        "indexedSkills": stats.skills,
        "indexedMemoryChunks": stats.memory_chunks,
        "lastIndexedAt": stats.indexed_at.isoformat(),
        "embeddingProvider": settings.clasper_embedding_provider,
    }
