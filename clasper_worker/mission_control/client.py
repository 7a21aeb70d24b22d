"""The backend's endpoints as methods (contract Part 1)."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import structlog

from clasper_worker.errors import BackendNotFoundError, BackendProtocolError, BackendRejectedError
from clasper_worker.mission_control.agent_tokens import AgentIdentity, AgentTokens
from clasper_worker.mission_control.capabilities import ask_capabilities
from clasper_worker.mission_control.models import (
    REQUIRED_FEATURES,
    Capabilities,
    Document,
    Message,
    Page,
    Task,
)
from clasper_worker.mission_control.paging import Rows, pages, read
from clasper_worker.mission_control.transport import BackendTransport, Confirm, protocol_error
from clasper_worker.observability.stopwatch import spent_on
from clasper_worker.observability.trace_context import TRACEPARENT, current_trace

_BASE = "/api/mission-control"
_PAGE_SIZE = 50  # the contract's own example: every backend takes it
_CAPABILITIES_TTL_SECONDS = 60.0

log = structlog.get_logger(__name__)

MadeT = TypeVar("MadeT", Task, Message, Document)
OnCreated = Callable[[str, str], object]


class MissionControl:
    """One backend, for any of its users; `as_agent` narrows it to one.

    Args:
        transport: sends the requests.
        tokens: mints the agent tokens.
        clock: monotonic seconds, for how long capabilities are remembered.
    """

    def __init__(
        self,
        transport: BackendTransport,
        tokens: AgentTokens,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._tokens = tokens
        self._clock = clock
        self._capabilities: tuple[Capabilities, float] | None = None

    def as_agent(
        self,
        identity: AgentIdentity,
        confirm: Confirm | None = None,
        on_created: OnCreated | None = None,
    ) -> AgentBackend:
        """The backend as one agent of one user sees it.

        Args:
            identity: the agent.
            confirm: called right before each POST; what it raises keeps it from being made.
            on_created: called with the collection and the id of each thing that was made.
        """
        return AgentBackend(self, identity, confirm, on_created)

    async def capabilities(self, identity: AgentIdentity) -> Capabilities:
        """What the backend offers, remembered for a minute.

        A backend without this endpoint, or with one that makes no sense, is taken to have the
        required features only.
        """
        if self._capabilities is not None and self._capabilities[1] > self._clock():
            return self._capabilities[0]
        try:
            data = await ask_capabilities(lambda path: self.request(identity, "GET", path))
            found = read(Capabilities, data, "GET capabilities")
        except (BackendNotFoundError, BackendRejectedError, BackendProtocolError) as exc:
            if not isinstance(exc, BackendNotFoundError):
                log.warning("backend.capabilities_not_read", reason=str(exc))
            found = Capabilities(features=dict.fromkeys(REQUIRED_FEATURES, True))
        self._capabilities = (found, self._clock() + _CAPABILITIES_TTL_SECONDS)
        return found

    async def request(
        self,
        identity: AgentIdentity,
        method: str,
        path: str,
        *,
        params: Mapping[str, str | int] | None = None,
        body: Mapping[str, Any] | None = None,
        confirm: Confirm | None = None,
        alone: bool = False,
    ) -> dict[str, Any]:
        """Send a request under the identity's agent token; see `BackendTransport.request`.

        Raises:
            BackendError: by what the backend answered.
        """
        with spent_on("backend"):
            return await self._transport.request(
                method,
                path,
                headers=lambda: self._headers(identity),
                params=params,
                body=body,
                confirm=confirm,
                alone=alone,
                who=identity.user_id,
            )

    def _headers(self, identity: AgentIdentity) -> dict[str, str]:
        headers = {"X-Agent-Token": self._tokens.token_for(identity)}
        if (trace := current_trace()) is not None:
            headers[TRACEPARENT] = trace.traceparent
        return headers


class AgentBackend:
    """The backend as one agent of one user sees it: every call under that agent's token.

    ``on_created`` is called for each thing that the backend has made: its collection and its id.
    """

    def __init__(
        self,
        mission_control: MissionControl,
        identity: AgentIdentity,
        confirm: Confirm | None = None,
        on_created: OnCreated | None = None,
    ) -> None:
        self._mission_control = mission_control
        self._confirm = confirm
        self._on_created = on_created
        self.identity = identity

    async def has(self, feature: str) -> bool:
        """Whether the backend offers a feature."""
        return (await self._mission_control.capabilities(self.identity)).has(feature)

    async def offered(self) -> frozenset[str]:
        """The features that the backend offers."""
        return (await self._mission_control.capabilities(self.identity)).offered

    async def tasks(self, *, title: str | None = None) -> AsyncIterator[Task]:
        """All tasks of the user, page by page; those that cannot be read are left out.

        Args:
            title: of a task that is looked for, without white space around it.

        Raises:
            BackendProtocolError: the task of that title cannot be read.
        """
        rows = Rows("GET tasks")
        async for item in self._items(f"{_BASE}/tasks", {}):
            task = rows.read(Task, item)
            if task is not None:
                yield task
            elif title is not None and _is_titled(item, title):
                # To leave this one out would be to make it a second time.
                raise protocol_error("GET tasks", "the task of the title looked for has no good id")

    async def list_tasks(self, *, limit: int, cursor: str | None) -> Page:
        """One page of the user's tasks, of the rows that can be read."""
        page = await self._page(f"{_BASE}/tasks", {}, limit, cursor)
        rows = Rows("GET tasks")
        items = tuple(item for item in page.items if rows.read(Task, item) is not None)
        return Page(items=items, next_cursor=page.next_cursor or None)

    async def create_task(
        self,
        *,
        title: str,
        idempotency_key: str,
        description: str | None = None,
        status: str = "in_progress",
        metadata: Mapping[str, Any] | None = None,
    ) -> Task:
        """Create a task.

        Raises:
            BackendConflictError: the key was used for another request.
        """
        body: dict[str, Any] = {"title": title}
        if description is not None:
            body["description"] = description
        body |= {
            "status": status,
            "metadata": {"type": "agent_thread"} if metadata is None else dict(metadata),
            "idempotency_key": idempotency_key,
        }
        return await self._create(Task, "tasks", body)

    async def post_message(self, *, task_id: str, content: str, idempotency_key: str) -> Message:
        """Post a message of the agent in a task's thread.

        Raises:
            BackendConflictError: the key was used for another message: one was already posted.
        """
        body = {
            "task_id": task_id,
            "content": content,
            "actor_type": "agent",
            "agent_role": self.identity.agent_role,
            "idempotency_key": idempotency_key,
        }
        return await self._create(Message, "messages", body)

    async def create_document(
        self, *, task_id: str, title: str, content: str, doc_type: str, idempotency_key: str
    ) -> Document:
        """Attach a document to a task.

        Raises:
            BackendConflictError: the key was used for another document: one was already made.
        """
        body = {
            "title": title,
            "content": content,
            "doc_type": doc_type,
            "task_id": task_id,
            "idempotency_key": idempotency_key,
        }
        return await self._create(Document, "documents", body)

    async def messages(self, task_id: str) -> AsyncIterator[Message]:
        """A task's messages, oldest first (feature ``history``)."""
        rows = Rows("GET messages")
        known: set[int] = set()
        async for item in self._items(f"{_BASE}/messages", {"task_id": task_id}):
            message = rows.read(Message, _of_task(item, task_id))
            if message is None:
                continue
            # Pages that lead in a circle must not make the oldest message the newest.
            if (key := hash(message.id)) not in known:
                known.add(key)
                yield message

    async def notifications(self, *, at_most: int = _PAGE_SIZE) -> tuple[dict[str, Any], ...]:
        """The user's notifications, as the backend gives them; pages are followed up to a number.

        Args:
            at_most: how many are wanted; a backend that gives no pages may give more.
        """
        path = f"{_BASE}/notifications"

        async def page_at(cursor: str | None) -> Page:
            query = {} if cursor is None else {"cursor": cursor}
            return read(Page, await self._get(path, query), "GET notifications")

        rows = Rows("GET notifications")
        found: list[dict[str, Any]] = []
        async for page in pages(page_at, "GET notifications"):
            for item in page.items:
                if isinstance(item, dict):
                    found.append(item)
                else:
                    rows.skip(f"is {type(item).__name__}, not an object")
            if not page.items or len(found) >= at_most:
                break
        return tuple(found)

    async def record_heartbeat(self) -> dict[str, Any]:
        """Tell the backend that the agent is there (feature ``heartbeat``).

        Returns:
            What the agent may be shown.
        """
        return await self._post(
            f"{_BASE}/heartbeat", {"user_id": self.identity.user_id}, alone=True
        )

    async def standup(self, timezone: str) -> dict[str, Any]:
        """Have the backend write the day's standup (feature ``standup``)."""
        body = {"user_id": self.identity.user_id, "timezone": timezone}
        return await self._post(f"{_BASE}/standup", body, alone=True)

    async def _post(
        self, path: str, body: Mapping[str, Any], *, alone: bool = False
    ) -> dict[str, Any]:
        return await self._mission_control.request(
            self.identity, "POST", path, body=body, confirm=self._confirm, alone=alone
        )

    async def _create(self, model: type[MadeT], collection: str, body: Mapping[str, Any]) -> MadeT:
        data = await self._post(f"{_BASE}/{collection}", body)
        # It was made: what the answer leaves out, all but the id, is as it was sent.
        told = {name: value for name, value in data.items() if value is not None}
        made = read(model, {**body, **told}, f"POST {collection}")
        if self._on_created is not None:
            self._on_created(collection, made.id)
        return made

    async def _get(
        self, path: str, params: Mapping[str, str | int] | None = None
    ) -> dict[str, Any]:
        return await self._mission_control.request(self.identity, "GET", path, params=params)

    async def _page(
        self, path: str, params: Mapping[str, str | int], limit: int, cursor: str | None
    ) -> Page:
        query = {**params, "limit": limit}
        if cursor is not None:
            query["cursor"] = cursor
        return read(Page, await self._get(path, query), f"GET {path}")

    async def _items(self, path: str, params: Mapping[str, str | int]) -> AsyncIterator[Any]:
        async def page_at(cursor: str | None) -> Page:
            return await self._page(path, params, _PAGE_SIZE, cursor)

        async for page in pages(page_at, f"GET {path}"):
            for item in page.items:
                yield item


def _is_titled(row: Any, title: str) -> bool:
    found = row.get("title") if isinstance(row, Mapping) else None
    return isinstance(found, str) and found.strip() == title


def _of_task(row: Any, task_id: str) -> Any:
    """A message's row with its task, which a list of one task's messages need not repeat."""
    if isinstance(row, Mapping) and row.get("task_id") is None:
        return {**row, "task_id": task_id}
    return row
