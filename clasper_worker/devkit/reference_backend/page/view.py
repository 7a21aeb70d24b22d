"""The page as HTML, written on the server; its script puts newer parts in place of old ones."""

from __future__ import annotations

import json
from urllib.parse import urlencode

from clasper_worker.devkit.reference_backend.page.html import Html, join, tag
from clasper_worker.devkit.reference_backend.page.reads import View
from clasper_worker.devkit.reference_backend.records import JsonItem


def render(view: View, problem: str | None) -> str:
    """The whole page.

    Args:
        view: what it shows.
        problem: why no turn can run, for the person; None where one can.
    """
    title = view.task["title"] if view.task else "New thread"
    head = tag(
        "head",
        tag("meta", attributes={"charset": "utf-8"}),
        tag(
            "meta",
            attributes={"name": "viewport", "content": "width=device-width, initial-scale=1"},
        ),
        tag("meta", attributes={"name": "color-scheme", "content": "light dark"}),
        tag("title", f"{title} · Mission Control"),
        tag("link", attributes={"rel": "icon", "href": "/page/icon.svg"}),
        tag("link", attributes={"rel": "stylesheet", "href": "/page/style.css"}),
        tag("script", attributes={"src": "/page/page.js", "defer": True}),
    )
    body = tag(
        "body",
        _top(view, problem),
        tag(
            "main",
            tag("nav", _tasks(view), attributes={"id": "tasks", "aria-label": "Tasks"}),
            _chat(view, problem),
            tag("aside", _side(view), attributes={"id": "side", "aria-label": "Data"}),
        ),
        attributes={
            "data-user": view.user_id,
            "data-task": view.task["id"] if view.task else "",
        },
    )
    page = tag("html", head, body, attributes={"lang": "en"})
    return f"<!doctype html>\n{page}\n"


def _top(view: View, problem: str | None) -> Html:
    options = (tag("option", attributes={"value": name}) for name in view.users)
    field = {
        "name": "user",
        "value": view.user_id,
        "list": "users",
        "required": True,
        "maxlength": "255",
        "autocomplete": "off",
        "aria-label": "User",
    }
    state = {"id": "worker", "class": "away" if problem else "ready", "role": "status"}
    return tag(
        "header",
        tag("h1", "Mission Control"),
        tag("span", "reference backend", attributes={"class": "quiet"}),
        tag("p", problem or "Worker connected", attributes=state),
        tag(
            "form",
            tag("label", "User", attributes={"for": "user"}),
            tag("input", attributes={**field, "id": "user"}),
            tag("datalist", *options, attributes={"id": "users"}),
            attributes={"method": "get", "action": "/", "id": "users-form"},
        ),
        attributes={"id": "top"},
    )


def _tasks(view: View) -> Html:
    opened = view.task["id"] if view.task else None
    new = {"href": _address(view), "class": "new", "aria-current": opened is None and "page"}
    entries = [
        tag(
            "li",
            tag(
                "a",
                tag("i", attributes={"class": "dot", "data-status": task["status"]}),
                tag("span", task["title"], attributes={"dir": "auto"}),
                tag("small", _words(task["status"])),
                attributes={
                    "href": _address(view, task["id"]),
                    "aria-current": task["id"] == opened and "page",
                },
            ),
        )
        for task in view.tasks
    ]
    return join(
        tag("h2", "Tasks", _count(len(entries))),
        tag("a", "New thread", attributes=new),
        tag("ul", *entries),
    )


def _chat(view: View, problem: str | None) -> Html:
    status = _words(view.task["status"]) if view.task else "Its title is what you write first"
    heading = tag(
        "header",
        tag("h2", view.task["title"] if view.task else "New thread", attributes={"dir": "auto"}),
        tag("small", status),
        attributes={"id": "thread-head"},
    )
    messages = [_message(item) for item in view.messages]
    if not messages:
        hint = (
            f"Write to the agent as {view.user_id}. It can create tasks, change their status and"
            " save documents, which appear beside this thread."
        )
        messages = [tag("p", hint, attributes={"class": "empty"})]
    live = {"id": "live", "aria-live": "polite", "hidden": True}
    return tag(
        "section",
        heading,
        tag(
            "div",
            tag("div", *messages, attributes={"id": "thread"}),
            tag("article", attributes=live),
            attributes={"id": "scroll", "tabindex": "0"},
        ),
        _composer(view, problem),
        attributes={"id": "chat", "aria-label": "Thread"},
    )


def _composer(view: View, problem: str | None) -> Html:
    roles = (
        tag("option", role, attributes={"value": role, "selected": role == view.role})
        for role in view.roles
    )
    text = {
        "id": "message",
        "name": "message",
        "rows": "2",
        "placeholder": "Message the agent",
        "aria-label": "Message",
        "autofocus": True,
        "dir": "auto",
    }
    role = tag("select", *roles, attributes={"id": "role", "name": "role", "aria-label": "Agent"})
    return tag(
        "form",
        tag(
            "p",
            tag("span", attributes={"id": "state"}),
            tag("span", attributes={"id": "figures"}),
            attributes={"id": "turn", "role": "status"},
        ),
        tag("textarea", attributes=text),
        tag(
            "div",
            tag("label", "Agent", role),
            tag("span", "Enter sends, Shift+Enter: new line", attributes={"class": "quiet"}),
            tag("button", "Stop", attributes={"type": "button", "id": "stop", "hidden": True}),
            tag(
                "button",
                "Send",
                attributes={"type": "submit", "id": "send", "disabled": problem is not None},
            ),
            attributes={"class": "row"},
        ),
        tag("noscript", "Sending and live changes need JavaScript."),
        attributes={"id": "composer"},
    )


def _message(item: JsonItem) -> Html:
    kind = item["actor_type"]
    who = item["agent_role"] if kind == "agent" else item.get("actor_id") or kind
    return tag(
        "article",
        tag("header", tag("b", who, attributes={"dir": "auto"}), _time(item["created_at"])),
        tag("div", item["content"], attributes={"class": "text", "dir": "auto"}),
        attributes={"class": f"message {kind}", "data-key": item["id"]},
    )


def _side(view: View) -> Html:
    pending = sum(item["status"] == "pending" for item in view.tool_requests)
    waiting = sum("delivered_at" not in item for item in view.notifications)
    return join(
        _list(
            "Tool requests",
            [_tool_request(item) for item in view.tool_requests],
            "Calls of tools that wait for a decision.",
            f"{pending} to decide" if pending else None,
        ),
        _list(
            "Documents",
            [_document(item) for item in view.documents],
            "Plans and other documents that agents save.",
        ),
        _list(
            "Notifications",
            [_notification(item) for item in view.notifications],
            "What agents are notified of.",
            f"{waiting} waiting" if waiting else None,
        ),
    )


def _list(title: str, entries: list[Html], empty: str, note: str | None = None) -> Html:
    shown = tag("ul", *entries) if entries else tag("p", empty, attributes={"class": "empty"})
    badge = tag("em", note) if note else None
    return tag("section", tag("h2", title, _count(len(entries)), badge), shown)


def _tool_request(item: JsonItem) -> Html:
    status = item["status"]
    buttons = None
    if status == "pending":
        buttons = tag(
            "div",
            *(
                tag(
                    "button",
                    label,
                    attributes={
                        "type": "button",
                        "data-decide": decision,
                        "data-request": item["id"],
                    },
                )
                for decision, label in (("approved", "Approve"), ("rejected", "Reject"))
            ),
            attributes={"class": "row"},
        )
    return tag(
        "li",
        tag(
            "header",
            tag("b", item["tool"], attributes={"dir": "auto"}),
            tag("small", status, attributes={"class": f"status {status}"}),
            _time(item["created_at"]),
        ),
        tag("p", item["reason"], attributes={"dir": "auto"}) if item.get("reason") else None,
        tag("pre", json.dumps(item["arguments"], ensure_ascii=False, indent=1)),
        buttons,
    )


def _document(item: JsonItem) -> Html:
    return tag(
        "li",
        tag(
            "details",
            tag(
                "summary",
                tag("b", item["title"], attributes={"dir": "auto"}),
                tag("small", item["doc_type"]),
                _time(item["created_at"]),
            ),
            tag("div", item["content"], attributes={"class": "text", "dir": "auto"}),
            attributes={"data-key": item["id"]},
        ),
    )


def _notification(item: JsonItem) -> Html:
    done = "delivered_at" in item
    return tag(
        "li",
        tag(
            "header",
            tag("b", item["session_key"], attributes={"dir": "auto"}),
            tag(
                "small",
                "delivered" if done else "waiting",
                attributes={"class": f"status {'approved' if done else 'pending'}"},
            ),
            _time(item["created_at"]),
        ),
        tag("div", item["content"], attributes={"class": "text", "dir": "auto"}),
    )


def _address(view: View, task_id: str | None = None) -> str:
    query = {"user": view.user_id, "role": view.role if task_id is None else None, "task": task_id}
    return "/?" + urlencode({name: value for name, value in query.items() if value is not None})


def _time(moment: str) -> Html:
    """UTC until the script shows it as the browser's own time."""
    return tag("time", moment[11:16], attributes={"datetime": moment})


def _count(number: int) -> Html | None:
    return tag("span", str(number), attributes={"class": "count"}) if number else None


def _words(status: str) -> str:
    return status.replace("_", " ")
