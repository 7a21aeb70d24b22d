"""What is wrong with a send request, told so that its sender can mend it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from clasper_worker.errors import InvalidRequestError
from clasper_worker.text.bounds import told_problems

_FIXES = {
    "missing": "add it",
    "extra_forbidden": "remove it, or move it into metadata, which passes unknown keys through",
    "string_type": "send a string",
    "bool_type": "send true or false",
    "bool_parsing": "send true or false",
    "tuple_type": "send a list",
    "dict_type": "send an object",
    "model_type": "send an object",
    "string_too_short": "send a non-empty value",
}
_FIELD_FIXES = {
    "user_id": "send the tenant's user id, a plain string",
    "session_key": "send user:{user_id}:{role} with this request's user_id, or send agent_role",
    "agent_role": "use 1 to 64 letters, digits, '_' or '-'",
    "message": "send the person's text, within the cap",
    "messages": "send fewer or shorter messages, each {role: user|assistant|system, content}",
    "task_id": "give task_id or task_title, or have the operator set CLASPER_DEFAULT_TASK",
    "metadata.workspace": "leave it out, or have the operator add it to CLASPER_WORKSPACES",
    "metadata.timezone": "send an IANA name such as Europe/Berlin",
    "webhook.url": "send a public http:// or https:// address, with credentials in webhook.headers;"
    " the operator may allow others with CLASPER_WEBHOOK_ALLOWED_HOSTS",
    "webhook.secret": "send 1 to 1024 characters, or leave it out",
    "webhook.headers": "send a few plain HTTP headers, each a name and one line of ASCII",
}


def field_problem(error: Mapping[str, Any]) -> dict[str, str]:
    """What one of pydantic's errors is about: the field, its problem and the fix; no value."""
    field = ".".join(str(part) for part in error["loc"])
    problem = str(error["msg"]).removeprefix("Value error, ")
    if not field:  # the checks across fields name theirs before the colon
        field, _, problem = problem.partition(": ")
    if error["type"] == "extra_forbidden":
        problem = "is not a field of a send request"
    return {"field": field, "problem": problem, "fix": _FIXES.get(error["type"]) or fix_of(field)}


def fix_of(field: str) -> str:
    """How to mend a field, or one inside of it, such as ``messages.0.role``."""
    group = field.partition(".")[0]
    return (
        _FIELD_FIXES.get(field)
        or _FIELD_FIXES.get(group)
        or "see the send request in docs/http-api.md"
    )


def plain_problems(error: ValidationError, fix: str) -> list[dict[str, str]]:
    """What is wrong with the fields of a request so small that one fix serves all; no value."""
    return [
        {"field": ".".join(str(part) for part in one["loc"]), "problem": one["msg"], "fix": fix}
        for one in error.errors(include_input=False, include_url=False)
    ]


def invalid_request(
    problems: Iterable[Mapping[str, str]], *, of: str = "send"
) -> InvalidRequestError:
    """Make the error that names each bad field, its problem and the fix.

    Args:
        problems: as `told_problems` takes them.
        of: which kind of request it is.
    """
    text, details = told_problems(problems)
    return InvalidRequestError(f"Invalid {of} request: {text}", details)
