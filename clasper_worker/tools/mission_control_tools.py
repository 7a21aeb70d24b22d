"""The backend's APIs as tools: tasks, messages, documents, notifications."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from clasper_worker.errors import BackendNotFoundError, ToolError
from clasper_worker.tools.registry import Tool, ToolArguments, ToolContext

Text = Annotated[str, Field(min_length=1)]


class ListTasks(ToolArguments):
    """Arguments of ``list_tasks``."""

    limit: Annotated[int, Field(ge=1, le=50, description="How many tasks at most.")] = 20
    cursor: Annotated[
        str | None, Field(description="next_cursor of the previous call, for the next page.")
    ] = None


class CreateTask(ToolArguments):
    """Arguments of ``create_task``."""

    title: Annotated[str, Field(min_length=1, max_length=256, description="A short title.")]
    description: Annotated[str | None, Field(description="What is to be done.")] = None
    status: Annotated[Text, Field(description="E.g. in_progress, todo, done.")] = "in_progress"


class PostMessage(ToolArguments):
    """Arguments of ``post_message``."""

    content: Annotated[Text, Field(description="The message, Markdown.")]
    task_id: Annotated[
        str | None, Field(description="The task to post to; this conversation's when omitted.")
    ] = None


class CreateDocument(ToolArguments):
    """Arguments of ``create_document``."""

    title: Annotated[Text, Field(max_length=500)]
    content: Annotated[Text, Field(description="The document, Markdown.")]
    doc_type: Annotated[
        str, Field(min_length=1, max_length=64, description="E.g. plan, report, note.")
    ] = "report"
    task_id: Annotated[
        str | None, Field(description="The task it belongs to; this conversation's when omitted.")
    ] = None


class GetNotifications(ToolArguments):
    """``get_notifications`` takes no arguments."""


async def _list_tasks(context: ToolContext, arguments: ListTasks) -> Mapping[str, Any]:
    page = await context.backend.list_tasks(limit=arguments.limit, cursor=arguments.cursor)
    fields = ("id", "title", "status", "description")
    tasks = [
        {name: item[name] for name in fields if item.get(name) is not None} for item in page.items
    ]
    return {"tasks": tasks, "next_cursor": page.next_cursor}


async def _create_task(context: ToolContext, arguments: CreateTask) -> Mapping[str, Any]:
    found = await context.tasks.find_or_create(
        context.backend,
        arguments.title,
        description=arguments.description,
        status=arguments.status,
    )
    task = found.task
    return {"id": task.id, "title": task.title, "status": task.status, "created": found.created}


async def _post_message(context: ToolContext, arguments: PostMessage) -> Mapping[str, Any]:
    message = await context.backend.post_message(
        task_id=arguments.task_id or context.task_id,
        content=arguments.content,
        idempotency_key=context.idempotency_key,
    )
    return {"id": message.id, "task_id": message.task_id, "posted": True}


async def _create_document(context: ToolContext, arguments: CreateDocument) -> Mapping[str, Any]:
    document = await context.backend.create_document(
        task_id=arguments.task_id or context.task_id,
        title=arguments.title,
        content=arguments.content,
        doc_type=arguments.doc_type,
        idempotency_key=context.idempotency_key,
    )
    return {"id": document.id, "title": document.title, "doc_type": document.doc_type}


async def _get_notifications(
    context: ToolContext, arguments: GetNotifications
) -> Mapping[str, Any]:
    del arguments
    try:
        return {"notifications": list(await context.backend.notifications())}
    except BackendNotFoundError:
        raise ToolError("This backend does not offer notifications") from None


MISSION_CONTROL_TOOLS: tuple[Tool[Any], ...] = (
    Tool("list_tasks", "List the user's tasks, a page at a time.", ListTasks, _list_tasks, "tasks"),
    Tool(
        "create_task",
        "Create a task for the user; if one of this title exists, that one is returned.",
        CreateTask,
        _create_task,
        "tasks",
    ),
    Tool(
        "post_message",
        "Post an extra message in a task's thread. Your final answer is posted by itself: do not"
        " post it with this.",
        PostMessage,
        _post_message,
        "messages",
    ),
    Tool(
        "create_document",
        "Save a document (a plan, a report, a note) with a task.",
        CreateDocument,
        _create_document,
        "documents",
    ),
    Tool(
        "get_notifications",
        "Read the user's notifications.",
        GetNotifications,
        _get_notifications,
        "notifications",
    ),
)
