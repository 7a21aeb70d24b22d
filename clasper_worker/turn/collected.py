"""Turns that waited for their session and are run with another as one (busy policy ``collect``)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, cast

from celery import states
from pydantic import Field

from clasper_worker.errors import ClasperError, InvalidRequestError
from clasper_worker.turn.request import RequestLimits, SendRequest, parse_send_request
from clasper_worker.turn.result import TurnResult

ReportEnd = Callable[[str, dict[str, Any], TurnResult | ClasperError], Awaitable[None]]


class JoinedRequest(SendRequest):
    """A send request with the messages that came after it.

    The digest by which a turn knows its request leaves them out: sent again under its key, the
    first request is the same turn, whatever was collected with it.

    Attributes:
        others: the later messages, in order of arrival.
    """

    others: tuple[str, ...] = Field(default=(), exclude=True, repr=False)

    @property
    def instruction(self) -> str:
        """What the model is told last: all the messages, in order of arrival."""
        return "\n\n".join((super().instruction, *self.others))


class CollectedTurns:
    """The other jobs of a turn: each gets the turn's result, or its failure, as its own.

    Args:
        collected: the jobs, each ``{"job_id", "request"}``, in order of arrival.
        backend: Celery's result backend.
    """

    def __init__(self, collected: Sequence[Mapping[str, Any]], backend: Any) -> None:
        self._jobs: list[tuple[str, dict[str, Any]]] = [
            (str(job["job_id"]), dict(job["request"])) for job in collected
        ]
        self._backend = backend

    async def join(
        self, request: SendRequest, limits: RequestLimits, report: ReportEnd
    ) -> SendRequest:
        """The request with the others' messages; a job whose own request is invalid fails."""
        if not self._jobs:
            return request
        others: list[str] = []
        joined: list[tuple[str, dict[str, Any]]] = []
        for job_id, arguments in self._jobs:
            try:
                others.append(parse_send_request(arguments, limits).message)
            except InvalidRequestError as exc:
                await self._end(job_id, arguments, exc, states.FAILURE, report)
            else:
                joined.append((job_id, arguments))
        self._jobs = joined
        return cast(
            "SendRequest",
            JoinedRequest.model_construct(
                request.model_fields_set, **dict(request), others=tuple(others)
            ),
        )

    async def succeed(self, result: TurnResult, report: ReportEnd) -> None:
        """Store the turn's result as each job's."""
        for job_id, arguments in self._jobs:
            await self._end(job_id, arguments, result, states.SUCCESS, report)

    async def fail(self, error: ClasperError, report: ReportEnd) -> None:
        """Store the turn's failure as each job's."""
        for job_id, arguments in self._jobs:
            await self._end(job_id, arguments, error, states.FAILURE, report)

    async def _end(
        self,
        job_id: str,
        arguments: dict[str, Any],
        end: TurnResult | ClasperError,
        state: str,
        report: ReportEnd,
    ) -> None:
        await asyncio.to_thread(self._backend.store_result, job_id, end, state)
        await report(job_id, arguments, end)
