"""The shim's routes, over an in-memory broker and a fake Redis."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import fakeredis
import httpx2
import pytest
from celery import Celery
from kombu import Connection

from clasper_worker.client import ClasperClient
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings
from clasper_worker.engine.http.listening import is_loopback
from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.errors import ConfigurationError
from clasper_worker.shim.app import create_app
from clasper_worker.shim.auth import refuse_open_door
from clasper_worker.shim.boot import BootRecord
from clasper_worker.shim.results import JobRegister
from clasper_worker.shim.services import ShimServices, ShimWorkspaces
from clasper_worker.streams.reader import StreamReader
from clasper_worker.streams.results import JobResults
from clasper_worker.turn.request import RequestLimits

REQUEST = {"user_id": "u1", "message": "Hello", "task_title": "T"}


@pytest.fixture
def make_client(settings_of: Callable[..., Settings]) -> Callable[..., httpx2.AsyncClient]:
    server = fakeredis.FakeServer()

    def make(**given: Any) -> httpx2.AsyncClient:
        settings = settings_of(
            celery_broker_url="memory://", celery_result_backend="cache+memory://", **given
        )
        client = ClasperClient.from_settings(settings)
        results = JobResults(client.app, settings.result_backend_url)
        services = ShimServices(
            settings,
            client,
            results,
            JobRegister(fakeredis.FakeAsyncRedis(server=server), ttl_seconds=60),
            RequestLimits.from_settings(settings),
            Canceller(client.app, None, QUEUES),
            ShimWorkspaces(settings),
            BootRecord(fakeredis.FakeAsyncRedis(server=server)),
            StreamReader(fakeredis.FakeAsyncRedis(server=server), results),
        )
        app = create_app(settings, services)
        transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1:8081")

    return make


@pytest.fixture
async def client(
    make_client: Callable[..., httpx2.AsyncClient],
) -> AsyncIterator[httpx2.AsyncClient]:
    async with make_client() as made:
        yield made


async def test_a_turn_is_queued_with_its_ids_and_where_to_follow_it(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.post("/api/agents/send", json=REQUEST)
    body = answer.json()
    assert answer.status_code == 202
    assert body["status"] == "queued"
    assert body["turn_id"] == body["job_id"]
    assert answer.headers["location"] == body["status_url"] == f"/api/jobs/{body['job_id']}"
    status = await client.get(body["status_url"])
    assert status.json() == {
        "job_id": body["job_id"],
        "turn_id": body["turn_id"],
        "status": "queued",
        "state": "PENDING",
    }


async def test_the_same_idempotency_key_is_the_same_turn_by_another_job(
    client: httpx2.AsyncClient,
) -> None:
    request = {**REQUEST, "idempotency_key": "k"}
    one, two = [(await client.post("/api/agents/send", json=request)).json() for _ in range(2)]
    assert one["turn_id"] == two["turn_id"]
    assert one["job_id"] != two["job_id"]


@pytest.mark.parametrize("asked", [{"params": {"wait": "0.05"}}, {"headers": {"prefer": "wait=0"}}])
async def test_a_turn_that_does_not_end_in_time_is_answered_as_queued(
    client: httpx2.AsyncClient, asked: dict[str, Any]
) -> None:
    answer = await client.post("/api/agents/send", json=REQUEST, **asked)
    assert (answer.status_code, answer.json()["status"]) == (202, "queued")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"message": "Hi", "task_title": "T"}, "user_id"),
        ({**REQUEST, "message": ""}, "message"),
        ({**REQUEST, "agent_role": "../x"}, "agent_role"),
        ({**REQUEST, "session_key": "user:other:writer"}, "session_key"),
        ({**REQUEST, "surprise": 1}, "surprise"),
    ],
)
async def test_a_bad_request_names_its_field(
    client: httpx2.AsyncClient, body: dict[str, Any], field: str
) -> None:
    answer = await client.post("/api/agents/send", json=body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_request"
    assert [item["field"] for item in answer.json()["details"]["fields"]] == [field]


@pytest.mark.parametrize("content", [b"{", b"[]", b"null", b"\xff"])
async def test_a_body_that_is_no_json_object_is_refused(
    client: httpx2.AsyncClient, content: bytes
) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = await client.post("/api/agents/send", content=content, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")


async def test_a_body_that_is_nested_without_end_is_refused(client: httpx2.AsyncClient) -> None:
    content = b'{"user_id": "u1", "message": "Hi", "metadata": {"a": ' + b"[" * 100_000
    headers = {"content-type": "application/json"}
    answer = await client.post("/api/agents/send", content=content, headers=headers)
    assert answer.status_code == 400


async def test_a_body_beyond_the_cap_is_refused_unread(
    make_client: Callable[..., httpx2.AsyncClient],
) -> None:
    async with make_client(clasper_max_request_chars=100) as client:
        body = {**REQUEST, "metadata": {"system_prompt": "x" * 2000}}
        answer = await client.post("/api/agents/send", json=body)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


async def test_another_content_type_is_refused(client: httpx2.AsyncClient) -> None:
    answer = await client.post("/api/agents/send", data={"user_id": "u1"})
    assert answer.status_code == 415


@pytest.mark.parametrize("wait", ["-1", "601", "soon", "nan"])
async def test_a_wait_that_is_no_sensible_number_is_refused(
    client: httpx2.AsyncClient, wait: str
) -> None:
    answer = await client.post("/api/agents/send", params={"wait": wait}, json=REQUEST)
    assert answer.status_code == 400


async def test_an_unknown_job_is_not_found(client: httpx2.AsyncClient) -> None:
    for method, path in (
        ("GET", "/api/jobs/nope"),
        ("GET", "/api/jobs/nope/events"),
        ("DELETE", "/api/jobs/nope"),
    ):
        answer = await client.request(method, path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


async def test_a_cancelled_job_is_told_as_such_and_one_that_ended_keeps_its_result(
    client: httpx2.AsyncClient,
) -> None:
    results = Celery(backend="cache+memory://", set_as_current=False).backend
    ids = [(await client.post("/api/agents/send", json=REQUEST)).json()["job_id"] for _ in "ab"]
    results.store_result(ids[0], {"turn_id": ids[0]}, "SUCCESS")
    ended, cancelled = [(await client.delete(f"/api/jobs/{job}")) for job in ids]
    assert (ended.status_code, ended.json()["status"]) == (200, "succeeded")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["error"]["code"] == "cancelled"


async def test_health_needs_no_key_and_deep_health_with_it_tells_what_is_missing(
    make_client: Callable[..., httpx2.AsyncClient],
) -> None:
    async with make_client(agent_daemon_api_key="k") as client:
        assert (await client.get("/health")).json()["status"] == "ok"
        assert (await client.get("/health", params={"deep": "true"})).status_code == 401
        key = {"X-Daemon-Key": "k"}
        deep = (await client.get("/health", params={"deep": "true"}, headers=key)).json()
    assert deep["status"] == "degraded"
    assert deep["checks"] == {"redis": True, "backend": False}


@pytest.mark.parametrize("header", ["X-Agent-Daemon-Key", "X-Daemon-Key"])
async def test_either_header_with_any_of_the_keys_opens(
    make_client: Callable[..., httpx2.AsyncClient], header: str
) -> None:
    async with make_client(agent_daemon_api_key="old, new") as client:
        for key, status in (("old", 202), ("new", 202), ("neither", 401), ("", 401)):
            answer = await client.post("/api/agents/send", json=REQUEST, headers={header: key})
            assert answer.status_code == status
        assert (await client.get("/api/jobs/x")).status_code == 401


def test_without_a_key_only_loopback_may_be_bound(settings_of: Callable[..., Settings]) -> None:
    refuse_open_door(settings_of(clasper_host="127.0.0.1"))
    refuse_open_door(settings_of(clasper_host="0.0.0.0", agent_daemon_api_key="k"))
    with pytest.raises(ConfigurationError, match="AGENT_DAEMON_API_KEY"):
        refuse_open_door(settings_of(clasper_host="0.0.0.0"))


def test_loopback_is_told_from_other_addresses() -> None:
    hosts = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "10.0.0.1", "example.com")
    assert [is_loopback(host) for host in hosts] == [True, True, True, False, False, False]


async def test_an_unreachable_broker_is_a_503(
    client: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kombu.exceptions import OperationalError

    def refuse(*_: Any, **__: Any) -> None:
        raise OperationalError("redis://:password@host")

    monkeypatch.setattr("celery.Celery.send_task", refuse)
    answer = await client.post("/api/agents/send", json=REQUEST)
    assert (answer.status_code, answer.json()["code"]) == (503, "state_unavailable")
    assert "password" not in answer.text


async def test_the_api_describes_the_send_request_for_client_generators(
    client: httpx2.AsyncClient,
) -> None:
    spec = (await client.get("/openapi.json")).json()
    body = spec["paths"]["/api/agents/send"]["post"]["requestBody"]
    name = body["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "idempotency_key" in spec["components"]["schemas"][name]["properties"]


async def test_the_api_describes_its_results_and_errors_as_they_are(
    client: httpx2.AsyncClient,
) -> None:
    spec = (await client.get("/openapi.json")).json()
    operations = [op for path in spec["paths"].values() for op in path.values()]
    assert operations
    for operation in operations:
        assert "422" not in operation["responses"]
        error = operation["responses"]["default"]["content"]["application/json"]["schema"]
        assert error == {"$ref": "#/components/schemas/Problem"}
    assert sorted(spec["components"]["schemas"]["Problem"]["required"]) == [
        "code",
        "details",
        "error",
    ]
    send = spec["paths"]["/api/agents/send"]["post"]["responses"]
    result = send["200"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert "response" in spec["components"]["schemas"][result]["properties"]


async def test_a_parameter_of_the_wrong_type_is_answered_as_any_other_error(
    client: httpx2.AsyncClient,
) -> None:
    answer = await client.get("/health", params={"deep": "perhaps"})
    assert answer.status_code == 400
    body = answer.json()
    assert (set(body), body["code"]) == ({"error", "code", "details"}, "invalid_request")
    assert body["error"].startswith("deep: ")
    assert body["details"]["fields"][0]["field"] == "deep"


async def test_the_api_names_the_header_of_the_key_where_there_is_one(
    settings_of: Callable[..., Settings],
) -> None:
    keyed = create_app(settings_of(agent_daemon_api_key="k" * 32)).openapi()
    scheme = keyed["components"]["securitySchemes"]["DaemonKey"]
    assert (scheme["in"], scheme["name"]) == ("header", "X-Agent-Daemon-Key")
    either: list[dict[str, list[str]]] = [{"DaemonKey": []}, {"ShortDaemonKey": []}]
    assert keyed["paths"]["/api/agents/send"]["post"]["security"] == either
    assert keyed["paths"]["/health"]["get"]["security"] == [{}, *either]
    assert "securitySchemes" not in create_app(settings_of()).openapi()["components"]


def test_the_client_checks_before_it_sends(settings_of: Callable[..., Settings]) -> None:
    client = ClasperClient("memory://", "cache+memory://")
    from clasper_worker.errors import InvalidRequestError

    with pytest.raises(InvalidRequestError):
        client.send({"user_id": "u1"})


async def test_a_turn_of_a_dispatcher_does_not_stand_before_those_that_people_wait_for(
    make_client: Callable[..., httpx2.AsyncClient],
) -> None:
    for queue, headers in (("clasper.dispatch", INTERNAL), ("clasper", {})):
        async with make_client(internal_api_token="internal") as client:
            answer, message = await sent(client, queue, headers)
        assert message.headers["id"] == answer.json()["job_id"]


INTERNAL = {"X-Internal-Token": "internal", "X-Clasper-Notification": '{"notification_id": "n1"}'}


async def sent(
    client: httpx2.AsyncClient, queue: str, headers: dict[str, str], **fields: Any
) -> tuple[httpx2.Response, Any]:
    """The shim's answer to a turn, and the message on the queue."""
    with Connection("memory://") as connection:
        channel = connection.channel()
        channel.queue_purge(queue)
        body = {**REQUEST, **fields}
        answer = await client.post("/api/agents/send", json=body, headers=headers)
        return answer, channel.basic_get(queue, no_ack=True)


async def test_what_a_turn_answers_is_a_header_of_its_message(
    make_client: Callable[..., httpx2.AsyncClient],
) -> None:
    async with make_client(internal_api_token="internal") as client:
        _, message = await sent(client, "clasper.dispatch", INTERNAL)
    assert message.headers["clasper_notification"] == {"notification_id": "n1"}


@pytest.mark.parametrize("token", [None, "internal"])
@pytest.mark.parametrize("given", [{}, {"X-Internal-Token": "other"}, {"X-Internal-Token": ""}])
async def test_who_has_not_the_internal_token_cannot_say_what_a_turn_answers(
    make_client: Callable[..., httpx2.AsyncClient], token: str | None, given: dict[str, str]
) -> None:
    mark = {"X-Clasper-Notification": '{"notification_id": "n1"}'}
    async with make_client(internal_api_token=token) as client:
        answer, message = await sent(client, "clasper.dispatch", {**mark, **given})
    assert (answer.status_code, message) == (403, None)
    assert answer.json()["code"] == "internal_token_refused"
    assert "INTERNAL_API_TOKEN" in answer.json()["error"]


@pytest.mark.parametrize("mark", ["", "n1", "[]", "{", "[" * 5000, '{"a": "' + "x" * 9000 + '"}'])
async def test_a_mark_that_is_no_object_is_refused(
    make_client: Callable[..., httpx2.AsyncClient], mark: str
) -> None:
    async with make_client(internal_api_token="internal") as client:
        headers = {**INTERNAL, "X-Clasper-Notification": mark}
        answer, _ = await sent(client, "clasper.dispatch", headers)
    assert answer.status_code == 400


async def test_the_body_says_nothing_of_what_a_turn_answers(client: httpx2.AsyncClient) -> None:
    marks = {"dispatch": {"notification_id": "n1"}, "malformed_notification": {"id": "x"}}
    answer, message = await sent(client, "clasper", INTERNAL_TOKEN_ALONE, metadata=marks)
    assert answer.status_code == 202
    assert "clasper_notification" not in message.headers
    assert json.loads(message.body)[1]["metadata"] == marks


INTERNAL_TOKEN_ALONE = {"X-Internal-Token": "internal"}
