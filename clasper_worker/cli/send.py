"""``clasper send``: one agent turn from the command line."""

from __future__ import annotations

import json
import sys
from typing import Any
from urllib.parse import urlsplit

import click
import httpx2
from celery.exceptions import TaskRevokedError
from celery.exceptions import TimeoutError as CeleryTimeoutError

from clasper_worker.cli.stream import Shown, follow_in_redis, follow_through_shim
from clasper_worker.client import ClasperClient
from clasper_worker.config.settings import Settings, get_settings
from clasper_worker.engine.http.redirects import is_loopback
from clasper_worker.engine.redis.faults import redis_fault, typed_error
from clasper_worker.errors import ClasperError, ConfigurationError, StateUnavailableError
from clasper_worker.periodic.enqueue import refuse_redirect
from clasper_worker.text.whole_text import whole_json


@click.command(
    name="send",
    epilog='Example: clasper send --user u1 --role writer "Create a task called Launch"',
)
@click.argument("message")
@click.option("--user", "user_id", help="The user to act for (USER_ID).")
@click.option("--role", "agent_role", help="The agent's role (AGENT_ROLE, default).")
@click.option("--session-key", help="user:{userId}:{role}, instead of --role.")
@click.option("--task-id", help="The Mission Control task to post to.")
@click.option("--task-title", help="Find or create the task of this title.")
@click.option("--plan", is_flag=True, help="Ask for a plan and save it as a document too.")
@click.option("--idempotency-key", help="The same user and key is the same turn.")
@click.option("--metadata", help="More switches, as a JSON object.")
@click.option("--http", is_flag=True, help="Go through the shim (AGENT_DAEMON_URL).")
@click.option("--timeout", default=120.0, show_default=True, help="Seconds to wait.")
@click.option("--no-wait", is_flag=True, help="Enqueue only; print the ids.")
@click.option("--stream", is_flag=True, help="Print the text as it comes.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(  # noqa: PLR0913 - one parameter an option
    *,
    message: str,
    user_id: str | None,
    agent_role: str | None,
    session_key: str | None,
    task_id: str | None,
    task_title: str | None,
    plan: bool,
    idempotency_key: str | None,
    metadata: str | None,
    http: bool,
    timeout: float,
    no_wait: bool,
    stream: bool,
    as_json: bool,
) -> None:
    """Enqueue one agent turn and show its reply.

    Exit code 0 only if the turn ended well (with --no-wait: was enqueued).
    """
    settings = get_settings()
    switches = _metadata(metadata)
    if plan:
        switches["kickoff_plan"] = True
    fields = {
        "user_id": user_id or settings.user_id,
        "message": message,
        "session_key": session_key,
        "agent_role": agent_role or (None if session_key else settings.agent_role),
        "task_id": task_id,
        "task_title": task_title,
        "idempotency_key": idempotency_key,
        "metadata": switches or None,
    }
    # A shell hands on bytes that are no UTF-8 as halves of surrogate pairs.
    request = whole_json({name: value for name, value in fields.items() if value is not None})
    if "user_id" not in request:
        raise ConfigurationError("Whose turn? Give --user, or set USER_ID", {"variable": "USER_ID"})
    if stream and no_wait:
        raise click.UsageError("--stream waits for the turn: leave out --no-wait")
    if stream and not as_json:
        follow = _stream_http if http else _stream_celery
        result = follow(settings, request, Shown(sys.stdout), timeout)
        _show_summary(result)
        return
    if stream:  # the model is, and the result comes whole
        request["stream"] = True
    through = _send_http if http else _send_celery
    result = through(settings, request, 0.0 if no_wait else timeout)
    _show(result, as_json=as_json)


def _metadata(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise click.BadParameter("must be a JSON object", param_hint="--metadata")
    return value


def _send_celery(settings: Settings, request: dict[str, Any], wait: float) -> dict[str, Any]:
    client = ClasperClient.from_settings(settings)
    try:
        turn = client.send(request)
        ids = {"status": "queued", "job_id": turn.job_id, "turn_id": turn.turn_id}
        if wait <= 0:
            return ids
        try:
            result: dict[str, Any] = turn.result.get(timeout=wait)
        except CeleryTimeoutError:
            raise _timed_out(ids, wait) from None
        except TaskRevokedError:
            raise ClasperError(f"The turn was cancelled. turn_id {turn.turn_id}") from None
        except ClasperError:
            raise
        except Exception as exc:
            if redis_fault(exc) is None:
                raise
            raise typed_error(exc, "CELERY_RESULT_BACKEND") from exc
        return result
    finally:
        client.close()


def _stream_celery(
    settings: Settings, request: dict[str, Any], shown: Shown, seconds: float
) -> dict[str, Any]:
    client = ClasperClient.from_settings(settings)
    try:
        return follow_in_redis(client, request, shown, seconds)
    finally:
        client.close()


def _stream_http(
    settings: Settings, request: dict[str, Any], shown: Shown, seconds: float
) -> dict[str, Any]:
    return follow_through_shim(*_shim(settings), request, shown, seconds)


def _shim(settings: Settings) -> tuple[str, dict[str, str]]:
    """The shim's address, and the headers that it wants."""
    base = settings.agent_daemon_url
    if base is None:
        raise ConfigurationError(
            "No AGENT_DAEMON_URL is configured: set it to the shim's address, such as"
            " http://127.0.0.1:8081",
            {"variable": "AGENT_DAEMON_URL"},
        )
    keys = settings.daemon_api_keys
    return base, {"X-Agent-Daemon-Key": keys[0]} if keys else {}


def _send_http(settings: Settings, request: dict[str, Any], wait: float) -> dict[str, Any]:
    base, headers = _shim(settings)
    try:
        answer = httpx2.post(
            f"{base}/api/agents/send",
            params={"wait": f"{wait:g}"},
            json=request,
            headers=headers,
            timeout=wait + 10,
            follow_redirects=False,
            trust_env=not is_loopback(urlsplit(base).hostname),
        )
        refuse_redirect(answer)
        body: dict[str, Any] = answer.json()
    except (httpx2.HTTPError, ValueError) as exc:
        raise StateUnavailableError(
            f"The shim does not answer ({type(exc).__name__}): check AGENT_DAEMON_URL"
        ) from exc
    if not isinstance(body, dict) or answer.status_code >= 400:
        known = body if isinstance(body, dict) else {}
        text = known.get("error", "no error text")
        code = f"{known.get('code')}, HTTP {answer.status_code}"
        raise ClasperError(f"The shim answered: {text} ({code})", known.get("details"))
    if wait > 0 and body.get("status") == "queued":
        raise _timed_out(body, wait)
    return body


def _timed_out(ids: dict[str, Any], wait: float) -> StateUnavailableError:
    return StateUnavailableError(
        f"The turn has not ended within {wait:g} s; it goes on. turn_id {ids['turn_id']}, job_id"
        f" {ids['job_id']}. Is a worker running?",
        {"turn_id": ids["turn_id"], "job_id": ids["job_id"]},
    )


def _show(result: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result, ensure_ascii=False))
        return
    if result["status"] == "queued":
        click.echo(f"queued: job {result['job_id']}, turn {result['turn_id']}")
        return
    click.echo(result["response"])
    _show_summary(result)


def _show_summary(result: dict[str, Any]) -> None:
    cost = result["cost"]
    price = "cost unknown" if cost["totalCost"] is None else f"${cost['totalCost']:.6f}"
    click.secho(
        f"\ntask {result['task_id']} · turn {result['turn_id']} · {cost['model']} ·"
        f" {result['usage']['total_tokens']} tokens · {result['tool_calls']} tool calls · {price}",
        dim=True,
        err=True,
    )
