import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.offline_model.conversation import ExecutedCall
from clasper_worker.offline_model.results import failure, told


def call(name: str, result: str, **arguments: str) -> ExecutedCall:
    return ExecutedCall(name, arguments, result)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ('{"error": "no such task", "code": "not_found"}', "no such task (not_found)"),
        ('{"error": {"message": "too long", "code": 422}}', "too long (422)"),
        ('{"ok": false, "message": "busy"}', "busy"),
        ('{"status": "error", "detail": "down"}', "down"),
        ("Error: connection refused", "Error: connection refused"),
        ("ToolError: no", "ToolError: no"),
    ],
)
def test_an_error_in_a_result_is_told_as_an_error(result: str, reason: str) -> None:
    assert failure(call("create_task", result)) == reason
    assert told(call("create_task", result)) == f"`create_task` failed: {reason}"


@pytest.mark.parametrize(
    "result",
    [
        '{"id": "t1", "error": null}',
        '{"id": "t1", "status": "failed"}',
        "[]",
        "",
        "no errors found",
    ],
)
def test_a_result_without_an_error_is_not_told_as_one(result: str) -> None:
    assert failure(call("create_task", result)) is None


@pytest.mark.parametrize(
    ("executed", "text"),
    [
        (
            call("create_task", '{"task": {"id": 7, "title": "A"}}'),
            "I created the task “A” (id 7).",
        ),
        (
            call("create_task", '{"id": "7", "title": "A", "created": false}'),
            "There was already a task “A” (id 7).",
        ),
        (
            call("create_document", '{"id": "d", "doc_type": "plan"}', title="P"),
            "I created the document “P” (type plan, id d).",
        ),
        (
            call("post_message", '{"id": "m", "posted": true}', content="Hi"),
            "I posted this message: “Hi” (id m).",
        ),
        (call("get_notifications", '{"items": []}'), "There are no notifications."),
        (
            call("list_tasks", '[{"title": "A", "status": "open"}]'),
            "There is 1 task:\n- “A” (status open)",
        ),
        (call("find", '{"results": ["x"]}'), "`find` returned 1 item:\n- x"),
        (
            call("get_weather", '{"temp": 12, "wind": {"kmh": 3}}'),
            '`get_weather` returned temp: 12; wind: {"kmh": 3}.',
        ),
        (call("ping", "pong"), "`ping` answered: “pong”"),
        (call("ping", ""), "`ping` answered nothing."),
    ],
)
def test_a_result_is_told_by_what_it_holds(executed: ExecutedCall, text: str) -> None:
    assert told(executed) == text


def test_a_long_list_is_told_by_its_beginning_and_count() -> None:
    items = ", ".join(f'{{"title": "T{i}"}}' for i in range(14))
    text = told(call("list_tasks", f'{{"tasks": [{items}], "next_cursor": "c"}}'))
    assert text.startswith("There are 14 tasks on this page (there are more):")
    assert text.endswith("- “T9”\n- … and 4 more")


@given(st.text())
def test_any_result_is_told_in_some_words(result: str) -> None:
    assert told(call("any_tool", result))
