"""Lists of the backend: page after page, and rows that cannot be read left out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from clasper_worker.errors import BackendProtocolError
from clasper_worker.mission_control.models import Page
from clasper_worker.mission_control.transport import protocol_error

MAX_PAGES = 10_000

_LONGEST_CURSOR = 4096

ModelT = TypeVar("ModelT", bound=BaseModel)

log = structlog.get_logger(__name__)


async def pages(
    fetch: Callable[[str | None], Awaitable[Page]], endpoint: str
) -> AsyncIterator[Page]:
    """All pages of a list, each cursor followed once.

    Args:
        fetch: gives the page that a cursor leads to; the first one for None.
        endpoint: for errors and the log.

    Raises:
        BackendProtocolError: there is no end to them.
    """
    cursor: str | None = None
    followed: set[str] = set()
    for _ in range(MAX_PAGES):
        page = await fetch(cursor)
        yield page
        cursor = page.next_cursor
        if not cursor:
            return
        if len(cursor) > _LONGEST_CURSOR:
            raise protocol_error(
                endpoint, f"next_cursor has more than {_LONGEST_CURSOR:,} characters"
            )
        if cursor in followed:
            log.warning("backend.cursor_repeated", endpoint=endpoint, pages=len(followed) + 1)
            return
        followed.add(cursor)
    raise protocol_error(endpoint, f"more than {MAX_PAGES:,} pages")


def read(model: type[ModelT], data: Mapping[str, Any], endpoint: str) -> ModelT:
    """An object of the contract.

    Raises:
        BackendProtocolError: it is not one; names the fields that are wrong.
    """
    try:
        return model.model_validate(data)
    except ValidationError as exc:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in error['loc'])}: {error['msg']}"
            for error in exc.errors(include_input=False, include_url=False)[:5]
        )
        raise protocol_error(endpoint, problems) from None


class Rows:
    """Reads the rows of one list; what cannot be read is left out, and logged once.

    A row that nobody asked for must not fail what others were asked for: `skipped` says how many
    there were.

    Args:
        endpoint: for the log.
    """

    def __init__(self, endpoint: str) -> None:
        self.skipped = 0
        self._endpoint = endpoint

    def read(self, model: type[ModelT], row: Any) -> ModelT | None:
        """A row as an object of the contract; None where it is none."""
        if not isinstance(row, Mapping):
            self.skip(f"is {type(row).__name__}, not an object")
            return None
        try:
            return read(model, row, self._endpoint)
        except BackendProtocolError as exc:
            self.skip(exc.message.partition("contract's: ")[2])
            return None

    def skip(self, problem: str) -> None:
        """Count a row that is left out; the first one of a list is logged, with its problem."""
        self.skipped += 1
        if self.skipped == 1:
            log.warning("backend.row_skipped", endpoint=self._endpoint, problem=problem)
