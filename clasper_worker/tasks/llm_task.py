"""``clasper.llm_task``: one structured model call."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from celery.exceptions import Ignore

from clasper_worker.celery import app
from clasper_worker.config.names import LLM_TASK
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.queue.delivery import TurnDelivery
from clasper_worker.errors import LeaseLostError
from clasper_worker.process import RUNTIME
from clasper_worker.tasks.base import ClasperTask, typed_errors
from clasper_worker.tasks.cancelled import fence_of
from clasper_worker.turn.llm_task import LlmTaskResult, parse_llm_task, run_llm_task
from clasper_worker.turn.request import RequestLimits
from clasper_worker.usage.counters import Spender

log = structlog.get_logger(__name__)


@app.task(base=ClasperTask, bind=True, name=LLM_TASK)
async def llm_task(self: ClasperTask, **kwargs: Any) -> LlmTaskResult:
    """One structured model call (contract Part 2, ``clasper.llm_task``)."""
    structlog.contextvars.bind_contextvars(job_id=self.request.id)
    try:
        async with typed_errors("llm_task"):
            limits = RequestLimits.from_settings(get_settings())
            request, check = await asyncio.to_thread(parse_llm_task, kwargs, limits)
            runtime = await RUNTIME.get()
            delivery = TurnDelivery.of(self.request)
            lease = await fence_of(delivery, self.name, self.request.id, kwargs)
            with runtime.usage.metered(Spender(self.request.id)) as meter:
                model = meter.of(runtime.model_named(request.model or "default"))
                result = await run_llm_task(request, check, model, lease.confirm)
            log.info("llm_task.done", model=result.cost.model, validated=result.validated)
            return result
    except LeaseLostError:
        raise Ignore("another worker has the job") from None
