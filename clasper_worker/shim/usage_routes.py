"""``GET /usage``: what was used of models."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from clasper_worker.shim.description import problems
from clasper_worker.shim.schemas import Usage
from clasper_worker.shim.services import ShimServices
from clasper_worker.usage.counters import KEPT_DAYS, Dimension, as_told, total
from clasper_worker.usage.report import kept_days, usage_by_day


def usage_routes(services: ShimServices) -> APIRouter:
    """The route that tells usage."""
    router = APIRouter(tags=["operations"])

    @router.get(
        "/usage",
        operation_id="getUsage",
        summary="Requests, tokens and cost, of all or of one user",
        responses={200: {"model": Usage}, **problems(400, 503)},
        response_model=None,
    )
    async def usage(
        user_id: Annotated[
            str | None, Query(min_length=1, max_length=256, description="Of this user alone.")
        ] = None,
        since: Annotated[
            date | None,
            Query(description=f"From this day on, in UTC; {KEPT_DAYS} days are kept."),
        ] = None,
    ) -> dict[str, Any]:
        days = kept_days(since)
        dimension: Dimension | None = None if user_id is None else "user"
        found = await usage_by_day(services.register.redis, days, dimension, user_id or "")
        first = since or min(found, default=datetime.now(UTC).date())
        begins = datetime(first.year, first.month, first.day, tzinfo=UTC)
        return {**as_told(total(found.values())), "since": begins.isoformat()}

    return router
