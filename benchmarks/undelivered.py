"""The backend's notifications that wait for their delivery, as the dispatcher is given them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


class Undelivered:
    """Notifications by user, oldest first, until they are acknowledged."""

    def __init__(self) -> None:
        self._waiting: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._owners: dict[str, str] = {}  # of all that ever waited

    def add(self, notifications: Iterable[Mapping[str, Any]]) -> None:
        """Have these wait, each with a ``notification_id`` and a ``user_id``."""
        for each in notifications:
            self._waiting.setdefault(each["user_id"], {})[each["notification_id"]] = each
            self._owners[each["notification_id"]] = each["user_id"]

    def page(self, limit_users: int, limit_notifications: int) -> list[Mapping[str, Any]]:
        """What waits: so many of the longest waiting users, of each so many of the oldest."""
        found: list[Mapping[str, Any]] = []
        for _, waiting in zip(range(limit_users), self._waiting.values(), strict=False):
            found += list(waiting.values())[:limit_notifications]
        return found

    def deliver(self, notification_id: str, user_id: str) -> bool:
        """Acknowledge one; a second time changes nothing. False if the user has none of that id."""
        waiting = self._waiting.get(user_id, {})
        waiting.pop(notification_id, None)
        if not waiting:
            self._waiting.pop(user_id, None)
        return self._owners.get(notification_id) == user_id
