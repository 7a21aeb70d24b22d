"""What Celery may show of a task's arguments."""

import json
from typing import Any

from celery import Celery
from hypothesis import given
from hypothesis import strategies as st
from kombu.message import Message

from clasper_worker.engine.pool.request import RedactedRequest
from clasper_worker.observability.redaction import SHOWN, redacted

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,  # only types and sizes are shown, never what is in them
)


def test_identifiers_show_and_text_is_a_size() -> None:
    shown = redacted(
        {"user_id": "u1", "message": "Hello", "messages": [1, 2], "metadata": {"a": 1}}
    )
    assert shown == (
        "{'user_id': 'u1', 'message': <5 characters>, 'messages': <list of 2>,"
        " 'metadata': <object of 1>}"
    )


@given(st.dictionaries(st.sampled_from(sorted(SHOWN)) | st.text(min_size=1), values))
def test_no_text_shows_but_of_the_fields_that_may(arguments: dict[str, Any]) -> None:
    word = "secret-of-a-person"
    spoiled = {name: word for name in arguments if name not in SHOWN} | {"message": word}
    assert word not in redacted(spoiled)
    assert redacted(arguments)


def test_a_message_from_a_plain_sender_is_shown_redacted() -> None:
    app = Celery("test", set_as_current=False)

    @app.task(name="test.redaction", shared=False)
    def task(**_: Any) -> None: ...

    kwargs = {"user_id": "u1", "message": "private words"}
    headers = {"id": "1", "task": "test.redaction", "kwargsrepr": repr(kwargs), "argsrepr": "()"}
    message = Message(
        body=json.dumps([["private words"], kwargs, {}]),
        content_type="application/json",
        content_encoding="utf-8",
        headers=headers,
    )
    request = RedactedRequest(message, app=app, task=task)
    assert "private" not in f"{request.kwargsrepr} {request.argsrepr} {request!r}"
    assert "private" not in request.request_dict["kwargsrepr"] + request.request_dict["argsrepr"]
    assert "u1" in request.kwargsrepr
    assert request.kwargs == kwargs
    # What `celery inspect` and Flower ask for, which would hold the arguments themselves.
    assert "private" not in json.dumps([request.info(), request.info(safe=True)], default=str)
