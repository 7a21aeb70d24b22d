"""``clasper.compact``: older history, summarised."""

from __future__ import annotations

from typing import Any

import structlog

from clasper_worker.celery import app
from clasper_worker.config.names import COMPACT_TASK
from clasper_worker.config.settings import get_settings
from clasper_worker.process import RUNTIME
from clasper_worker.tasks.base import ClasperTask, typed_errors
from clasper_worker.turn.compact import CompactResult, compact, parse_compact_request
from clasper_worker.turn.request import RequestLimits
from clasper_worker.usage.counters import Spender

log = structlog.get_logger(__name__)


@app.task(base=ClasperTask, bind=True, name=COMPACT_TASK)
async def compact_history(self: ClasperTask, **kwargs: Any) -> CompactResult:
    """Summarise older history to one message (contract Part 2, ``clasper.compact``)."""
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    async with typed_errors("compact"):
        limits = RequestLimits.from_settings(get_settings())
        request = parse_compact_request(kwargs, limits)
        runtime = await RUNTIME.get()
        turns = runtime.turns
        with runtime.usage.metered(Spender(self.request.id)) as meter:
            model = meter.of(turns.model("cheap"))
            result = await compact(request, model, turns.window("cheap"))
        log.info("compact.done", before=result.original_count, after=result.compacted_count)
        return result
