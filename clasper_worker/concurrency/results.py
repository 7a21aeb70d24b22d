"""Celery's Redis result backend, storing a state in one step instead of two.

Celery reads the stored state first, so that nothing overwrites SUCCESS, and writes afterwards. Two
writers (a retry and its next attempt, a redelivery and a revocation) can both read before either
writes; and each state costs two exchanges with Redis. Here a script on the server does both.
What is stored, under which keys, and what is published to waiting clients is unchanged.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from celery import states
from celery.backends.redis import RedisBackend
from celery.exceptions import BackendStoreError
from redis.commands.core import Script

# KEYS[1]: the task's key. ARGV[1]: its new state as JSON. ARGV[2]: seconds to keep it, 0 for ever.
_STORE = """
local stored = redis.call('GET', KEYS[1])
if stored then
  local readable, meta = pcall(cjson.decode, stored)
  if readable and type(meta) == 'table' and meta['status'] == 'SUCCESS' then return 0 end
end
local seconds = tonumber(ARGV[2])
if seconds > 0 then
  redis.call('SET', KEYS[1], ARGV[1], 'EX', seconds)
else
  redis.call('SET', KEYS[1], ARGV[1])
end
redis.call('PUBLISH', KEYS[1], ARGV[1])
return 1
"""


class AtomicRedisBackend(RedisBackend):
    """Stores results as ``RedisBackend`` does, but reads and writes in one step."""

    def _store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: Any = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        if self.serializer != "json" or self.compression:
            # The script reads JSON only.
            return super()._store_result(
                task_id, result, state, traceback, request=request, **kwargs
            )
        meta = self._get_result_meta(
            result=result, state=state, traceback=traceback, request=request
        )
        meta["task_id"] = str(task_id)
        value = self.encode(meta)
        if len(value) > self._MAX_STR_VALUE_SIZE:
            raise BackendStoreError(
                "value too large for Redis backend", state=state, task_id=task_id
            )
        expires = self.failure_expires if state == states.FAILURE else self.expires
        self.ensure(self._store_unless_done, (self.get_key_for_task(task_id), value, expires or 0))
        return result

    def _store_unless_done(self, key: bytes | str, value: str, expires: int) -> None:
        self._script(keys=[key], args=[value, int(expires)])

    @cached_property
    def _script(self) -> Script:
        script: Script = self.client.register_script(_STORE)
        return script
