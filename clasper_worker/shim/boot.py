"""Whether a workspace's ``BOOT.md`` has been carried out (contract Part 2, ``/boot``).

``BOOT.md`` says what is to be done once, at first start. Whoever deploys the workspace reads it
(``GET /boot``), has it done, and says so (``POST /boot/complete``). It is no part of a turn's
prompt. A worker keeps nothing and a workspace may be mounted read-only, so completion is one small
key in Redis, shared by all processes. It belongs to the text: an edited ``BOOT.md`` is to be done
again. The key has no expiry; where Redis loses it, the boot shows as not done.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass, field

import redis.asyncio as redis
from redis.exceptions import RedisError

from clasper_worker.engine.redis.faults import typed_error
from clasper_worker.prompt.workspace.snapshot import BOOT_FILE, WorkspaceSnapshot

_CALL_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Boot:
    """``BOOT.md`` and its completion; ``content`` is None where there is no such file."""

    content: str | None = field(repr=False)
    is_complete: bool


class BootRecord:
    """Remembers in Redis which boots were carried out.

    Args:
        client: our own state's Redis.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._redis = client

    async def read(self, workspace: str, snapshot: WorkspaceSnapshot) -> Boot:
        """What there is to do at first start, and whether it was done.

        Args:
            workspace: the workspace's name in the allow-list, ``default`` for the default one.
            snapshot: what it says now.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        text = snapshot.text(BOOT_FILE)
        if text is None:
            return Boot(None, is_complete=False)
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                done = await self._redis.exists(_key(workspace, text))
        except (RedisError, OSError) as exc:  # a TimeoutError is one
            raise typed_error(exc) from exc
        return Boot(text, is_complete=bool(done))

    async def complete(self, workspace: str, snapshot: WorkspaceSnapshot) -> None:
        """Note that the present ``BOOT.md`` was carried out; without one there is nothing to note.

        Raises:
            StateUnavailableError: Redis does not answer.
        """
        text = snapshot.text(BOOT_FILE)
        if text is None:
            return
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                await self._redis.set(_key(workspace, text), 1)
        except (RedisError, OSError) as exc:  # a TimeoutError is one
            raise typed_error(exc) from exc


def _key(workspace: str, text: str) -> str:
    digest = hashlib.sha256(f"{len(workspace)}:{workspace}{text}".encode()).hexdigest()
    return f"clasper:boot:{digest}"
