"""Tasks, messages, documents, and what they hold."""

from clasper_worker.conformance.probe import DOCUMENTS, MARK, MESSAGES, TASKS, Probe, require
from clasper_worker.conformance.registry import CheckFailed, check

_UNICODE = "Grüße, 你好, مرحبا, e\u0301, 👩‍👩‍👧, \U0001f980, \u2028 “…”"
_LARGE = "0123456789abcdef" * 12_500  # 200 kB
_CONTENT = "people would read something else than the agent wrote"


@check(
    "tasks.create",
    wants="the answer to a new task is the task: text `id`, `title`, `status` as sent",
    why="the worker posts the reply to that id",
)
async def create_task(probe: Probe) -> None:
    title = f"{MARK} created"
    answer = await probe.post(TASKS, title=title, description="d", status="todo", metadata={"a": 1})
    answer.made()
    found = answer.object()
    require((found.get("title"), found.get("status")) == (title, "todo"), answer.shown)


@check(
    "tasks.list",
    wants="a new task is in the list, with id, title and status",
    why="the worker finds a conversation by its title",
)
async def list_tasks(probe: Probe) -> None:
    made = await probe.task("listed")
    items = await probe.all(TASKS, limit=50, until=lambda found: _with(found, made) is not None)
    found = _with(items, made)
    if found is None:
        raise CheckFailed(f"the task {made} is not in the list of {len(items)}")
    require(
        found.get("title") == f"{MARK} listed" and bool(found.get("status")), f"listed as {found}"
    )


def _with(items: list[dict[str, object]], made: str) -> dict[str, object] | None:
    return next((one for one in items if one.get("id") == made), None)


@check(
    "messages.create",
    wants="the answer to a new message has text `id`, and `task_id` and `content` as sent",
    why="that is how a turn knows that its reply was posted",
)
async def create_message(probe: Probe) -> None:
    body = {"task_id": await probe.task(), "content": f"{MARK} hello"}
    answer = await probe.post(MESSAGES, actor_type="agent", agent_role="conformance", **body)
    answer.made()
    require({name: answer.object().get(name) for name in body} == body, answer.shown)


@check(
    "documents.create",
    wants="the answer to a new document has text `id`, and `title`, `doc_type`, `task_id` as sent",
    why="plans and reports are documents",
)
async def create_document(probe: Probe) -> None:
    body = {"task_id": await probe.task(), "title": f"{MARK} plan", "doc_type": "plan"}
    answer = await probe.post(DOCUMENTS, content="text", **body)
    answer.made()
    require({name: answer.object().get(name) for name in body} == body, answer.shown)


async def _comes_back(probe: Probe, content: str) -> None:
    task = await probe.task()
    answer = await probe.post(MESSAGES, task_id=task, content=content)
    require(answer.object().get("content") == content, f"another content: {answer.shown}")
    (await probe.post(DOCUMENTS, task_id=task, title=f"{MARK} d", content=content)).made()
    if probe.features.get("history"):
        for path in (MESSAGES, DOCUMENTS):
            found = [one.get("content") for one in await probe.all(path, task_id=task)]
            require(found == [content], f"GET {path} gives another content than was posted")


@check("content.unicode", wants="any Unicode text comes back as it was sent", why=_CONTENT)
async def unicode(probe: Probe) -> None:
    await _comes_back(probe, f"{MARK} {_UNICODE}")


@check("content.unicode_title", wants="a title in any script comes back as sent", why=_CONTENT)
async def unicode_title(probe: Probe) -> None:
    title = f"{MARK} Grüße 你好 👩‍👩‍👧"
    answer = await probe.post(TASKS, title=title)
    require(answer.object().get("title") == title, answer.shown)


@check("content.large", wants="a content of 200 kB is kept whole", why=_CONTENT)
async def large(probe: Probe) -> None:
    await _comes_back(probe, f"{MARK} {_LARGE}")


@check("content.layout", wants="line breaks, indents and markup are kept", why=_CONTENT)
async def layout(probe: Probe) -> None:
    await _comes_back(probe, f"{MARK}\n\n    code <b>&amp;</b>\t'\"\\\n  - x\n")


@check(
    "history.order",
    feature="history",
    wants="GET messages?task_id= gives that task's messages, oldest first",
    why="the model reads the conversation in this order",
)
async def order(probe: Probe) -> None:
    task, another = await probe.task(), await probe.task("another")
    for number in range(3):
        (await probe.post(MESSAGES, task_id=task, content=f"{MARK} {number}")).made()
    (await probe.post(MESSAGES, task_id=another, content=f"{MARK} elsewhere")).made()
    found = [one.get("content") for one in await probe.all(MESSAGES, task_id=task)]
    require(found == [f"{MARK} {number}" for number in range(3)], f"it gave {found}")
