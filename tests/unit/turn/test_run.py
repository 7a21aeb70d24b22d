"""One turn against the real reference backend: what is posted, and what is not."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from celery.exceptions import SoftTimeLimitExceeded

from clasper_worker import errors
from clasper_worker.prompt.sanitize import unfence_data
from clasper_worker.testing import calls, says
from clasper_worker.turn.journal import Outcome
from clasper_worker.turn.journal_store import MemoryLedger, ledger_key
from clasper_worker.turn.models import TurnIdentity
from clasper_worker.turn.request import parse_send_request


async def test_the_reply_is_posted_once_to_the_task_and_returned(harness: Any) -> None:
    result, _ = await harness.run(says("Hi there", prompt=100, completion=20))
    assert await harness.messages(result.task_id) == ["Hi there"]
    assert (result.response, result.tool_calls, result.turn_id) == ("Hi there", 0, "turn-1")
    assert result.usage.model_dump() == {
        "prompt_tokens": 100,
        "completion_tokens": 20,
        "total_tokens": 120,
    }
    assert result.cost.totalCost


async def test_the_result_as_json_has_the_contracts_fields(harness: Any) -> None:
    result, _ = await harness.run(says("Hi"))
    assert set(result.as_json()) == {
        "status", "turn_id", "task_id", "trace_id", "response", "usage", "cost", "tool_calls",
    }  # fmt: skip
    assert set(result.as_json()["cost"]) == {
        "model", "inputTokens", "outputTokens", "inputCost", "outputCost", "totalCost", "currency",
    }  # fmt: skip
    assert "Hi" not in repr(result)


async def test_the_prompt_is_soul_rules_history_and_the_message_last(harness: Any) -> None:
    history = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    _, model = await harness.run(says("ok"), messages=history)
    messages = model.requests[0].messages
    assert [message.role for message in messages] == ["system", "user", "assistant", "user"]
    assert "You are kind." in messages[0].content
    assert "Be helpful." in messages[0].content
    assert [message.content for message in messages[1:3]] == ["Q", "A"]
    assert messages[3].content.endswith("\n\nHello")
    assert "2026-03-29" in messages[3].content
    assert "2026-03-29" not in messages[0].content


async def test_the_roles_soul_wins(harness: Any, workspace_path: Any) -> None:
    from clasper_worker.prompt.workspace.workspace import Workspace

    (workspace_path / "souls").mkdir()
    (workspace_path / "souls" / "writer.md").write_text("You are a writer.")
    with Workspace.open(workspace_path) as workspace:
        harness.deps = replace(harness.deps, workspace=lambda *_: workspace.current())
        _, model = await harness.run(says("ok"), agent_role="writer")
    system = model.requests[0].messages[0].content
    assert "You are a writer." in system
    assert "You are kind." not in system


async def test_without_given_history_the_tasks_messages_are_the_history(harness: Any) -> None:
    first, _ = await harness.run(says("one"), turn_id="t1")
    _, model = await harness.run(says("two"), turn_id="t2", settings={"history_limit": 5})
    assert [(m.role, m.content) for m in model.requests[0].messages[1:-1]] == [("assistant", "one")]
    for number in range(60):
        await harness.run(says(f"reply {number}"), turn_id=f"n{number}", messages=[])
    _, model = await harness.run(says("x"), turn_id="t3", settings={"history_limit": 2})
    recent = [message.content for message in model.requests[0].messages[1:-1]]
    assert recent == ["reply 58", "reply 59"]
    assert first.task_id


async def test_a_kickoff_plan_is_posted_and_saved_as_a_document(harness: Any) -> None:
    metadata = {"kickoff_plan": True, "kickoff_note": "Three steps.", "plan_title": "My plan"}
    result, model = await harness.run(says("1. 2. 3."), metadata=metadata)
    assert model.requests[0].messages[-1].content.endswith("Three steps.\n\nHello")
    assert await harness.messages(result.task_id) == ["1. 2. 3."]
    (post,) = [r for r in harness.http.requests if r.url.path.endswith("/documents")]
    document = json.loads(post.content)
    assert (document["title"], document["doc_type"]) == ("My plan", "plan")
    assert document["content"] == "1. 2. 3."


async def test_tools_act_on_the_backend_as_the_agent(harness: Any) -> None:
    result, model = await harness.run(
        calls(
            ("create_task", {"title": "Sub"}),
            ("post_message", {"content": "working on it"}),
            ("create_document", {"title": "D", "content": "text", "doc_type": "note"}),
            ("get_notifications", {}),
        ),
        calls(("list_tasks", {})),
        says("done"),
    )
    assert result.tool_calls == 5
    assert await harness.titles() == ["Thread", "Sub"]
    assert await harness.messages(result.task_id) == ["working on it", "done"]
    messages = model.requests[-1].messages
    told = [json.loads(unfence_data(m.content)) for m in messages if m.role == "tool"]
    assert told[0]["created"] is True
    assert told[3] == {"notifications": []}
    assert [task["title"] for task in told[4]["tasks"]] == ["Thread", "Sub"]


async def test_every_post_carries_a_key_of_its_own_that_a_repetition_of_the_turn_repeats(
    harness: Any,
) -> None:
    script = (
        calls(("create_task", {"title": "Sub"}), ("post_message", {"content": "a"})),
        calls(("post_message", {"content": "b"})),
        says("done"),
    )
    metadata = {"kickoff_plan": True}
    first, _ = await harness.run(*script, metadata=metadata)
    posts = [json.loads(r.content) for r in harness.http.requests if r.method == "POST"]
    keys = [post["idempotency_key"] for post in posts]
    assert len(set(keys)) == len(keys) == 6
    again, _ = await harness.run(*script, metadata=metadata)
    assert again.task_id == first.task_id
    assert await harness.messages(first.task_id) == ["a", "b", "done"]
    assert Counter(await harness.titles()) == {"Thread": 1, "Sub": 1}


async def test_another_turn_or_user_has_other_keys(harness: Any) -> None:
    one, _ = await harness.run(says("same"), turn_id="t1")
    await harness.run(says("same"), turn_id="t2")
    other, _ = await harness.run(says("same"), turn_id="t1", user_id="u2")
    assert await harness.messages(one.task_id) == ["same", "same"]
    assert await harness.messages(other.task_id, "u2") == ["same"]


async def test_a_repeated_turn_whose_model_answers_otherwise_posts_nothing_twice(
    harness: Any,
) -> None:
    harness.deps = replace(harness.deps, ledger=MemoryLedger())
    first, _ = await harness.run(says("one"))
    harness.deps = replace(harness.deps, ledger=MemoryLedger())  # what was known is lost
    with pytest.raises(errors.TurnConflictError):
        await harness.run(says("two"))
    assert await harness.messages(first.task_id) == ["one"]


async def test_a_turn_that_has_its_outcome_is_not_thought_over_again(harness: Any) -> None:
    metadata = {"kickoff_plan": True}
    first, _ = await harness.run(calls(("list_tasks", {})), says("one"), metadata=metadata)
    again, model = await harness.run(metadata=metadata)
    assert again.model_dump(exclude={"trace_id"}) == first.model_dump(exclude={"trace_id"})
    assert model.requests == []
    assert await harness.messages(first.task_id) == ["one"]


async def test_runs_of_one_turn_at_the_same_time_post_and_return_one_reply(harness: Any) -> None:
    runs = await asyncio.gather(*(harness.run(says(f"reply {n}")) for n in range(5)))
    assert len({result.response for result, _ in runs}) == 1
    assert await harness.messages(runs[0][0].task_id) == [runs[0][0].response]


@pytest.mark.parametrize("change", [{"message": "Other"}, {"task_title": "Other"}])
async def test_the_same_turn_with_another_request_is_a_conflict(
    harness: Any, change: dict[str, str]
) -> None:
    await harness.run(says("one"))
    with pytest.raises(errors.TurnConflictError):
        await harness.run(says("two"), **change)
    assert await harness.titles() == ["Thread"]


async def test_a_reply_cut_at_the_models_limit_says_so(harness: Any) -> None:
    cut = replace(says("Once upon"), finish_reason="length")
    result, _ = await harness.run(cut)
    assert "cut" in (result.context_warning or "")


async def test_a_filtered_reply_fails_the_turn(harness: Any) -> None:
    with pytest.raises(errors.ModelRejectedError):
        await harness.run(replace(says("part"), finish_reason="content_filter"))
    assert "messages" not in harness.http.paths("POST")


async def test_a_remembered_task_that_is_gone_is_looked_up_again_by_the_next_turn(
    harness: Any,
) -> None:
    await harness.run(says("one"), turn_id="1")
    harness.http.answers["GET", "messages"] = [httpx2.Response(404, json={})]
    with pytest.raises(errors.BackendNotFoundError):
        await harness.run(turn_id="2")
    looked = harness.http.paths("GET").count("tasks")
    await harness.run(says("two"), turn_id="3")
    assert harness.http.paths("GET").count("tasks") == looked + 1


@pytest.mark.parametrize(
    "failure",
    [
        errors.ModelUnavailableError("down"),
        errors.ModelAuthError("key"),
        errors.ModelRejectedError("no"),
        says(""),
        says(" \n"),
    ],
)
async def test_a_turn_whose_model_fails_or_says_nothing_posts_nothing(
    harness: Any, failure: Any
) -> None:
    with pytest.raises(errors.ModelError):
        await harness.run(failure)
    assert "messages" not in harness.http.paths("POST")


async def test_a_refused_reply_fails_the_turn(harness: Any) -> None:
    harness.http.answers["POST", "messages"] = [httpx2.Response(403, json={"error": "no"})]
    with pytest.raises(errors.BackendRejectedError):
        await harness.run(says("Hi"))


async def test_an_unavailable_backend_is_tried_again_with_the_same_bytes(harness: Any) -> None:
    harness.http.answers["POST", "messages"] = [httpx2.Response(503)]
    result, _ = await harness.run(says("Hi"))
    sent = [r.content for r in harness.http.requests if r.url.path.endswith("/messages")
            and r.method == "POST"]  # fmt: skip
    assert len(sent) == 2
    assert sent[0] == sent[1]
    assert await harness.messages(result.task_id) == ["Hi"]


async def test_a_backend_that_goes_away_under_a_tool_fails_the_turn(harness: Any) -> None:
    harness.http.answers["POST", "documents"] = [httpx2.Response(500)] * 5
    with pytest.raises(errors.BackendUnavailableError):
        await harness.run(calls(("create_document", {"title": "T", "content": "c"})), says("x"))
    assert "messages" not in harness.http.paths("POST")


async def test_a_wrong_secret_says_which_variable_to_set(harness: Any) -> None:
    from clasper_worker.mission_control.agent_tokens import AgentTokens

    harness.deps.mission_control._tokens = AgentTokens("another-secret-of-32-characters-or-so")
    with pytest.raises(errors.BackendAuthError, match="AGENT_JWT_SECRET"):
        await harness.run(says("Hi"))


async def test_task_id_wins_over_title_and_the_default_is_last(harness: Any) -> None:
    first, _ = await harness.run(says("a"), turn_id="1", task_title="T")
    by_id, _ = await harness.run(says("b"), turn_id="2", task_id=first.task_id, task_title="Other")
    assert by_id.task_id == first.task_id
    await harness.run(says("c"), turn_id="3", task_title=None, settings={"default_task": "Default"})
    assert await harness.titles() == ["T", "Default"]


async def test_no_task_at_all_is_a_clear_error(harness: Any) -> None:
    with pytest.raises(errors.ConfigurationError, match="CLASPER_DEFAULT_TASK"):
        await harness.run(says("a"), task_title=None)


async def test_a_task_id_that_is_not_the_users_is_named_and_costs_no_model_call(
    harness: Any,
) -> None:
    mine, _ = await harness.run(says("a"))
    with pytest.raises(errors.BackendNotFoundError, match=mine.task_id):
        await harness.run(user_id="u2", task_id=mine.task_id)


async def test_an_existing_task_is_found_on_a_later_page(harness: Any) -> None:
    backend = harness.backend()
    for number in range(120):
        await backend.create_task(title=f"Task {number}", idempotency_key=f"k{number}")
    await harness.run(says("a"), task_title="Task 117")
    assert len(await harness.titles()) == 120


async def test_turns_that_want_the_same_new_title_at_once_share_one_task(harness: Any) -> None:
    results = await asyncio.gather(
        *(
            harness.run(says("a"), turn_id=f"t{n}", task_title="New", task_description=f"d{n}")
            for n in range(10)
        )
    )
    assert len({result.task_id for result, _ in results}) == 1
    assert await harness.titles() == ["New"]


async def test_a_new_task_gets_the_requests_description_and_metadata(harness: Any) -> None:
    await harness.run(
        says("a"), task_description="D", task_metadata={"type": "x"}, task_title="New"
    )
    (post,) = [r for r in harness.http.requests if r.method == "POST" and "tasks" in r.url.path]
    body = json.loads(post.content)
    assert (body["description"], body["metadata"]) == ("D", {"type": "x"})
    assert body["status"] == "in_progress"


async def test_a_system_prompt_in_the_request_replaces_the_soul(harness: Any) -> None:
    _, model = await harness.run(says("a"), metadata={"system_prompt": "You are a pirate."})
    system = model.requests[0].messages[0].content
    assert "You are a pirate." in system
    assert "You are kind." not in system


def _key(turn_id: str = "turn-1") -> str:
    request = parse_send_request({"user_id": "u1", "message": "Hello", "task_title": "Thread"})
    return ledger_key(request, TurnIdentity(turn_id, turn_id, "0" * 32))


async def test_a_turn_that_has_ended_is_answered_without_any_request(harness: Any) -> None:
    first, _ = await harness.run(says("one"))
    count = len(harness.http.requests)
    again, model = await harness.run()
    assert again == first  # the trace's id, too: it is the very same result
    assert model.requests == []
    assert len(harness.http.requests) == count


async def test_a_turn_whose_end_cannot_be_recorded_has_ended_all_the_same(harness: Any) -> None:
    class Failing(MemoryLedger):
        async def record(self, key: str, entries: Any, spent: float) -> Any:
            if entries[0][0] == "result":
                raise errors.StateUnavailableError("Redis is away")
            return await super().record(key, entries, spent)

    harness.deps = replace(harness.deps, ledger=Failing())
    first, _ = await harness.run(says("one"))
    again, model = await harness.run()
    assert (first.response, again.response, model.requests) == ("one", "one", [])
    assert await harness.messages(first.task_id) == ["one"]


async def test_what_earlier_runs_took_counts_towards_the_soft_limit(harness: Any) -> None:
    await harness.deps.ledger.record(_key(), [], 400)
    with pytest.raises(SoftTimeLimitExceeded):
        await harness.run(says("late"), settings={"soft_limit_seconds": 300})
    assert harness.http.paths("POST") == []
    await harness.run(says("in time"), settings={"soft_limit_seconds": 500})


async def test_a_turn_that_timed_out_says_so_once_and_ends_the_same_way_again(
    harness: Any,
) -> None:
    found, _ = await harness.run(says("before"), turn_id="another")
    late = Outcome(kind="timed_out", task_id=found.task_id, text="late")
    await harness.deps.ledger.record(_key(), [("outcome", late.model_dump_json())], 1)
    with pytest.raises(errors.TurnTimeoutError):
        await harness.run()
    assert await harness.messages(found.task_id) == ["before", "late"]
    before = len(harness.http.requests)
    with pytest.raises(errors.TurnTimeoutError):
        await harness.run()
    assert len(harness.http.requests) == before


async def test_half_an_emoji_in_a_stored_message_does_not_break_the_thread(harness: Any) -> None:
    result, _ = await harness.run(says("First"), turn_id="turn-1")
    rows = [
        {"id": "m1", "content": "half \ud83d", "actor_type": "user"},
        {"id": None, "content": None},
        {"id": "m2", "content": "\ude00 other half", "actor_type": "agent"},
    ]
    body = json.dumps({"items": rows}).encode()
    harness.http.answers["GET", "messages"] = [httpx2.Response(200, content=body)]
    again, model = await harness.run(
        says("Fine \ud83d"), turn_id="turn-2", task_id=result.task_id, message="And \ud83d?"
    )
    told = [message.content for message in model.requests[0].messages[1:]]
    assert told[0] == "half \ufffd"
    assert told[1] == "\ufffd other half"
    assert told[2].endswith("And \ufffd?")
    assert again.task_id == result.task_id
    assert (await harness.messages(result.task_id))[-1] == "Fine \ufffd"


async def test_tools_are_offered_as_far_as_the_backend_has_what_they_need(harness: Any) -> None:
    _, everything = await harness.run(says("Hi"))
    assert "get_notifications" in {tool.name for tool in everything.requests[0].tools}


async def test_a_backend_without_notifications_is_not_offered_their_tool(harness: Any) -> None:
    harness.http.answers["GET", "capabilities"] = [
        httpx2.Response(200, json={"contract_version": "v1", "features": {"history": True}})
    ]
    _, model = await harness.run(says("Hi"))
    names = {tool.name for tool in model.requests[0].tools}
    assert names == {"list_tasks", "create_task", "post_message", "create_document"}
    assert "get_notifications" not in str(model.requests[0].messages)
