"""Those who send turns and wait for results: a stock Celery app, as a customer's backend has."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from celery import Celery, states
from redis import Redis
from redis.exceptions import RedisError

from tests.chaos.records import SentTurn, TurnEnd
from tests.chaos.script import message_for, session_of, thread_of

QUEUE = "clasper"
_CHUNK = 500


class Callers:
    """Knows the broker, the task's name, and nothing else of ours.

    Attributes:
        app: sends.
        client: a plain connection to the Redis of results, which is mostly the broker's.
        sent: all turns, in order.
    """

    def __init__(self, url: str, broker: str) -> None:
        self.app = Celery("chaos", broker=broker, set_as_current=False)
        if not broker.startswith("redis"):
            # RabbitMQ says that it has a message; written into a connection that it has closed one
            # is gone.
            self.app.conf.broker_transport_options = {"confirm_publish": True}
        self.client: Redis = Redis.from_url(url, socket_timeout=60)
        self.sent: list[SentTurn] = []
        self._reader = Celery("chaos-reader", backend=url, set_as_current=False)
        self._ends: dict[str, TurnEnd] = {}

    def send(
        self, token: str, *, tool: bool = False, slow: bool = False, stream: bool = False
    ) -> SentTurn:
        """Send one turn."""
        request = request_for(token, tool=tool, slow=slow) | ({"stream": True} if stream else {})
        at = time.monotonic()
        turn = SentTurn(token, request["user_id"], (self.enqueue(request),), tool, at)
        self.sent.append(turn)
        return turn

    def enqueue(self, request: dict[str, Any], task_id: str | None = None) -> str:
        """Enqueue a send request; returns the Celery task's id. From any thread."""
        task = self.app.send_task("clasper.send", task_id=task_id, kwargs=request, queue=QUEUE)
        return str(task.id)

    def pending(self) -> list[str]:
        """Celery tasks without a final result; a final one is remembered, should it be deleted."""
        ids = [
            (name, turn.token)
            for turn in self.sent
            for name in turn.celery_ids
            if name not in self._ends
        ]
        backend = self._reader.backend
        for start in range(0, len(ids), _CHUNK):
            chunk = ids[start : start + _CHUNK]
            try:
                values = self.client.mget([backend.get_key_for_task(name) for name, _ in chunk])
            except (RedisError, OSError):
                break
            for (name, token), value in zip(chunk, values, strict=True):
                if value is not None:
                    self._note_end(name, token, backend.decode_result(value))
        return [name for name, _ in ids if name not in self._ends]

    def process_of(self, token: str) -> int | None:
        """The process that has said it runs a turn; None where none has, or it has ended."""
        names = [name for sent in self.sent if sent.token == token for name in sent.celery_ids]
        for name in names:
            meta = self._reader.backend.get_task_meta(name, cache=False)
            if meta["status"] == states.STARTED:
                return int(meta["result"]["pid"])
        return None

    def delete(self, patterns: Iterable[str]) -> dict[str, int]:
        """Delete keys by pattern; results that are among them were fetched by then.

        Returns:
            How many keys of each pattern there were.
        """
        names = {name: turn.token for turn in self.sent for name in turn.celery_ids}
        tokens = {self._reader.backend.get_key_for_task(n): (n, names[n]) for n in names}
        deleted = {}
        for pattern in patterns:
            keys = list(self.client.scan_iter(pattern, count=1000))
            deleted[pattern] = len(keys)
            for start in range(0, len(keys), _CHUNK):
                chunk = keys[start : start + _CHUNK]
                # In one step: no result can be written in between, and be gone unseen.
                with self.client.pipeline(transaction=True) as pipe:
                    for key in chunk:
                        pipe.get(key) if key in tokens else pipe.exists(key)
                    pipe.delete(*chunk)
                    values = pipe.execute()
                for key, value in zip(chunk, values[:-1], strict=True):
                    if key in tokens and value is not None:
                        self._note_end(*tokens[key], self._reader.backend.decode_result(value))
        return deleted

    def ended(self) -> int:
        """How many Celery tasks have a final result by now."""
        self.pending()
        return len(self._ends)

    def ends(self) -> tuple[TurnEnd, ...]:
        """The result of every Celery task, PENDING where there is none."""
        self.pending()
        return tuple(
            self._ends.get(name) or TurnEnd(turn.token, name, "PENDING")
            for turn in self.sent
            for name in turn.celery_ids
        )

    def close(self) -> None:
        """Close the connections."""
        self.app.close()
        self._reader.close()
        self.client.close()

    def _note_end(self, name: str, token: str, meta: dict[str, Any]) -> None:
        state = meta["status"]
        if state == "SUCCESS":
            result = meta["result"]
            end = TurnEnd(token, name, state, result["turn_id"], result["response"])
        elif state in {"FAILURE", "REVOKED"}:
            error = meta["result"]
            kind = error["exc_type"] if isinstance(error, dict) else type(error).__name__
            end = TurnEnd(token, name, state, error=str(kind))
        else:
            return
        self._ends[name] = end


def request_for(token: str, *, tool: bool = False, slow: bool = False) -> dict[str, Any]:
    """The send request of a turn: two sessions to a tenant, a thread to a session."""
    session = session_of(token)
    number = int(session[1:])
    user, role = f"u{number // 2}", f"r{number % 2}"
    return {
        "user_id": user,
        "session_key": f"user:{user}:{role}",
        "message": message_for(token, tool=tool, slow=slow),
        "task_title": thread_of(token),
    }
