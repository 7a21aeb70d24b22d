"""``clasper heartbeat``: one heartbeat of one agent."""

from __future__ import annotations

import json
import sys
from typing import Any

import click
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult

from clasper_worker.client import ClasperClient
from clasper_worker.config.names import HEARTBEAT_TASK, PERIODIC_QUEUE
from clasper_worker.config.settings import get_settings
from clasper_worker.engine.redis.faults import redis_fault, typed_error
from clasper_worker.errors import ClasperError, ConfigurationError, StateUnavailableError


@click.command(name="heartbeat", epilog="Example: clasper heartbeat --user u1 --role writer")
@click.option("--user", "user_id", help="The user to act for (USER_ID).")
@click.option("--role", "agent_role", help="The agent's role (AGENT_ROLE, default).")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print what it did as JSON.")
def command(*, user_id: str | None, agent_role: str | None, timeout: float, as_json: bool) -> None:
    """Have a worker run one heartbeat of an agent, at whatever hour, and show what came of it.

    It is skipped where HEARTBEAT.md says nothing and while the session is busy, and gives way to a
    message that comes meanwhile. Exit code 0 only if it took place.
    """
    settings = get_settings()
    user = user_id or settings.user_id
    if not user:
        raise ConfigurationError(
            "Whose heartbeat? Give --user, or set USER_ID", {"variable": "USER_ID"}
        )
    role = agent_role or settings.agent_role or "default"
    client = ClasperClient.from_settings(settings)
    try:
        request = {"user_id": user, "agent_role": role, "any_time": True}
        job_id = client.submit(HEARTBEAT_TASK, request, queue=PERIODIC_QUEUE)
        report = _report(client.app.AsyncResult(job_id), timeout)
    finally:
        client.close()
    took_place = report["status"] != "skipped"
    if as_json:
        click.echo(json.dumps(report))
    elif not took_place:
        click.echo(f"heartbeat skipped: {report['reason']}")
    else:
        found = "nothing needs attention" if report["status"] == "ok" else "posted a message"
        click.echo(f"{user} ({role}): {found}; {report['tool_calls']} tool calls")
        click.echo("heartbeat_ok")
    sys.exit(0 if took_place else 1)


def _report(job: AsyncResult, timeout: float) -> dict[str, Any]:
    """What became of the heartbeat, once it has ended.

    Raises:
        ClasperError: it failed, or has not ended in time.
    """
    try:
        report: dict[str, Any] = job.get(timeout=timeout)
    except CeleryTimeoutError:
        raise StateUnavailableError(
            f"The heartbeat has not ended within {timeout:g} s; it goes on. Is a worker running?",
            {"job_id": job.id},
        ) from None
    except TaskRevokedError:
        return {"status": "skipped", "reason": "gave_way", "tool_calls": 0}
    except ClasperError:
        raise
    except Exception as exc:
        if redis_fault(exc) is None:
            raise
        raise typed_error(exc, "CELERY_RESULT_BACKEND") from exc
    return report
