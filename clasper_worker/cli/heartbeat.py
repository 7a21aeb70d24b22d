"""``clasper heartbeat``: one heartbeat of one agent."""

from __future__ import annotations

import json
import sys

import click
from celery.exceptions import TimeoutError as CeleryTimeoutError
from redis.exceptions import RedisError

from clasper_worker.client import ClasperClient
from clasper_worker.errors import ConfigurationError, StateUnavailableError
from clasper_worker.settings import get_settings

QUEUE = "clasper.periodic"


@click.command(name="heartbeat", epilog="Example: clasper heartbeat --user u1 --role writer")
@click.option("--user", "user_id", help="The user to act for (USER_ID).")
@click.option("--role", "agent_role", help="The agent's role (AGENT_ROLE, default).")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait.")
@click.option("--json", "as_json", is_flag=True, help="Print what it did as JSON.")
def command(*, user_id: str | None, agent_role: str | None, timeout: float, as_json: bool) -> None:
    """Have a worker run one heartbeat of an agent, at whatever hour, and show what came of it.

    Exit code 0 only if it took place.
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
        job_id = client.submit("clasper.heartbeat", request, queue=QUEUE)
        report = client.app.AsyncResult(job_id).get(timeout=timeout)
    except CeleryTimeoutError:
        raise StateUnavailableError(
            f"The heartbeat has not ended within {timeout:g} s; it goes on. Is a worker running?",
            {"job_id": job_id},
        ) from None
    except (RedisError, RuntimeError) as exc:
        raise StateUnavailableError(
            "The result backend cannot be reached: check CELERY_RESULT_BACKEND"
        ) from exc
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
