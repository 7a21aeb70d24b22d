"""The error model: statuses that say whose fault it is, and one body."""

from clasper_worker.conformance.probe import (
    DOCUMENTS,
    MARK,
    MESSAGES,
    TASKS,
    Answer,
    Probe,
    require,
)
from clasper_worker.conformance.registry import check

_RETRY = "a worker retries a 5xx and gives a 4xx back to the model at once"


def _body(answer: Answer) -> None:
    text = answer.body.get("error") if isinstance(answer.body, dict) else None
    require(isinstance(text, str) and bool(text), f"no text `error`: {answer.shown}")


@check("errors.body", wants='an error is {"error": text, …}', why="the model reads what to fix")
async def body(probe: Probe) -> None:
    _body((await probe.post(TASKS)).has(400, 422))


@check(
    "errors.auth_body", wants='a 401 is {"error": text, …} too', why="the operator reads it in logs"
)
async def auth_body(probe: Probe) -> None:
    _body(await probe.call("GET", TASKS, token=None))


@check("errors.not_found_body", wants='a 404 is {"error": text, …} too', why="the model reads it")
async def not_found_body(probe: Probe) -> None:
    _body(await probe.post(MESSAGES, task_id=f"none-{probe.key()}", content=f"{MARK} x"))


@check("errors.missing_title", wants="a task without title is 400", why=_RETRY)
async def missing_title(probe: Probe) -> None:
    (await probe.post(TASKS, description=f"{MARK} untitled")).has(400)


@check("errors.missing_content", wants="a message without content is 400", why=_RETRY)
async def missing_content(probe: Probe) -> None:
    (await probe.post(MESSAGES, task_id=await probe.task())).has(400)


@check("errors.missing_document_title", wants="a document without title is 400", why=_RETRY)
async def missing_document_title(probe: Probe) -> None:
    (await probe.post(DOCUMENTS, task_id=await probe.task(), content="x")).has(400)


@check("errors.wrong_type", wants="a title that is no text is 400", why=_RETRY)
async def wrong_type(probe: Probe) -> None:
    (await probe.post(TASKS, title={"a": 1})).has(400)


@check("errors.malformed", wants="a body that is no JSON is 400", why=_RETRY)
async def malformed(probe: Probe) -> None:
    (await probe.call("POST", TASKS, raw=b'{"title": ')).has(400)


@check("errors.unknown_task", wants="a message to a task that is not there is 404", why=_RETRY)
async def unknown_task(probe: Probe) -> None:
    body = {"task_id": f"none-{probe.key()}", "content": f"{MARK} x"}
    (await probe.post(MESSAGES, **body)).has(404)


@check(
    "errors.unknown_task_document",
    wants="a document for a task that is not there is 404",
    why=_RETRY,
)
async def unknown_task_document(probe: Probe) -> None:
    body = {"task_id": f"none-{probe.key()}", "title": f"{MARK} x", "content": "x"}
    (await probe.post(DOCUMENTS, **body)).has(404)


@check(
    "errors.additive",
    wants="fields that are not known are ignored",
    why="a newer worker would not work with this backend",
)
async def additive(probe: Probe) -> None:
    (await probe.post(TASKS, title=f"{MARK} additive", a_field_of_tomorrow=True)).made()
