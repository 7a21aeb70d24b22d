"""Notifications, and their delivery by a dispatcher."""

from __future__ import annotations

import sqlite3
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from clasper_worker.devkit.reference_backend.access import (
    EITHER_TOKEN,
    AgentDep,
    BackendDep,
    Cursor,
    EitherDep,
    InternalOnly,
    Limit,
    feature,
    own_tenant,
)
from clasper_worker.devkit.reference_backend.answers import (
    Delivered,
    Deliveries,
    Notification,
    Page,
    shows,
)
from clasper_worker.devkit.reference_backend.errors import invalid_field
from clasper_worker.devkit.reference_backend.records import (
    NOTIFICATIONS,
    TASKS,
    JsonItem,
    get,
    insert,
    now,
    page,
    to_item,
    update,
)
from clasper_worker.devkit.reference_backend.schemas import NewNotification, UndeliveredQuery
from clasper_worker.devkit.reference_backend.store import Transaction

router = APIRouter(
    prefix="/api/mission-control/notifications",
    tags=["notifications"],
    dependencies=[Depends(feature("notifications"))],
)
dispatch = APIRouter(
    prefix="/api/mission-control/dispatch",
    tags=["dispatch (internal token)"],
    dependencies=[Depends(feature("notifications_dispatch")), InternalOnly],
)

_Count = Annotated[int, Query(ge=1, le=1000)]


@router.get("", responses=shows(Page[Notification]))
async def list_notifications(
    backend: BackendDep, agent: AgentDep, limit: Limit = 50, cursor: Cursor = None
) -> Response:
    """The user's notifications, oldest first; those with `delivered_at` have been delivered."""
    filters = {"user_id": agent.user_id}
    return backend.answer(
        lambda connection: page(connection, NOTIFICATIONS, filters, limit, cursor)
    )


@router.post("", openapi_extra=EITHER_TOKEN, responses=shows(Notification))
async def create_notification(
    request: Request, backend: BackendDep, caller: EitherDep, body: NewNotification
) -> Response:
    """Notify a user's agent (ours, beyond the contract).

    The internal token may notify any user, an agent its own. The dispatcher then finds it among
    the undelivered.
    """
    if caller is not None:
        own_tenant(caller, body.user_id or caller.user_id)
        user_id = caller.user_id
    elif body.user_id is None:
        raise invalid_field(
            "user_id", "is required with the internal token", "Add the user to notify."
        )
    else:
        user_id = body.user_id

    def work(transaction: Transaction) -> JsonItem:
        if body.task_id is not None:
            get(transaction, TASKS, user_id, body.task_id)
        values = body.model_dump(exclude={"idempotency_key", "user_id"})
        values["session_key"] = body.session_key or f"user:{user_id}:{body.agent_role or 'default'}"
        return insert(transaction, NOTIFICATIONS, user_id, values)

    return await backend.change_once(request, user_id, body, work)


@dispatch.get("/undelivered", responses=shows(Deliveries))
async def undelivered(
    backend: BackendDep, limit_users: _Count = 25, limit_notifications: _Count = 25
) -> Response:
    """What is to be delivered: the oldest of each user, the longest waiting users first.

    At most `limit_users` users, and at most `limit_notifications` for each.
    """
    return backend.answer(
        lambda connection: {
            "deliveries": _undelivered(connection, limit_users, limit_notifications)
        }
    )


@dispatch.post("/undelivered", responses=shows(Deliveries))
async def undelivered_by_post(
    backend: BackendDep,
    limit_users: _Count = 25,
    limit_notifications: _Count = 25,
    body: UndeliveredQuery | None = None,
) -> Response:
    """The same as GET; the limits may stand in the body instead."""
    body = body or UndeliveredQuery()
    return await undelivered(
        backend,
        body.limit_users or limit_users,
        body.limit_notifications or limit_notifications,
    )


@dispatch.post("/notifications/{notification_id}/deliver", responses=shows(Delivered))
async def deliver(
    backend: BackendDep, notification_id: str, user_id: Annotated[str, Query(min_length=1)]
) -> Response:
    """Acknowledge one delivery; a second time changes nothing."""

    def work(transaction: Transaction) -> JsonItem:
        item = get(transaction, NOTIFICATIONS, user_id, notification_id)
        first_time = "delivered_at" not in item
        if first_time:
            item = update(
                transaction, NOTIFICATIONS, user_id, notification_id, {"delivered_at": now()}
            )
        return {
            "notification_id": notification_id,
            "user_id": user_id,
            "status": "delivered",
            "delivered_at": item["delivered_at"],
            "already_delivered": not first_time,
        }

    return await backend.change(work)


def _undelivered(
    connection: sqlite3.Connection, limit_users: int, limit_notifications: int
) -> list[JsonItem]:
    users = connection.execute(
        "SELECT user_id FROM notifications WHERE delivered_at IS NULL "
        "GROUP BY user_id ORDER BY min(seq) LIMIT ?",
        (limit_users,),
    ).fetchall()
    return [
        item
        for (user_id,) in users
        for item in undelivered_of(connection, user_id, limit_notifications)
    ]


def undelivered_of(
    source: sqlite3.Connection | Transaction, user_id: str, limit: int
) -> list[JsonItem]:
    """One user's undelivered notifications, oldest first, as a dispatcher gets them."""
    rows = source.execute(
        "SELECT id AS notification_id, user_id, session_key, content, agent_role, task_id, "
        "task_title, created_at FROM notifications "
        "WHERE user_id = ? AND delivered_at IS NULL ORDER BY seq LIMIT ?",
        (user_id, limit),
    )
    return [to_item(row) for row in rows]
