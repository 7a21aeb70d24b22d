"""HTTP to the backend: retries and errors."""

from collections.abc import Callable

import aiohttp
import httpx2
import pytest
import stamina

from clasper_worker import errors
from clasper_worker.mission_control.transport import BackendTransport

Handler = Callable[[httpx2.Request], httpx2.Response]


def transport_answering(handler: Handler, *, attempts: int = 3) -> BackendTransport:
    client = httpx2.AsyncClient(
        base_url="http://backend.test", transport=httpx2.MockTransport(handler)
    )
    return BackendTransport(client, attempts=attempts, max_wait_seconds=0.001)


@pytest.fixture(autouse=True)
def no_waiting() -> object:
    with stamina.set_testing(testing=True, attempts=3, cap=True):
        yield


async def get(transport: BackendTransport, path: str = "/x") -> dict[str, object]:
    return await transport.request("GET", path, headers=dict)


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_transient_answer_is_tried_again_with_the_very_same_bytes(status: int) -> None:
    bodies: list[bytes] = []
    answers = [httpx2.Response(status), httpx2.Response(200, json={"id": "1"})]

    def handler(request: httpx2.Request) -> httpx2.Response:
        bodies.append(request.content)
        return answers.pop(0)

    body = {"content": "é", "idempotency_key": "k"}
    result = await transport_answering(handler).request("POST", "/x", headers=dict, body=body)
    assert result == {"id": "1"}
    assert bodies[0] == bodies[1] == '{"content":"é","idempotency_key":"k"}'.encode()


@pytest.mark.parametrize(
    "raised", [httpx2.ConnectError("x"), httpx2.ReadTimeout("x"), aiohttp.ClientError("x")]
)
async def test_a_lost_connection_is_tried_again_and_then_unavailability(raised: Exception) -> None:
    tries: list[int] = []

    def handler(_: httpx2.Request) -> httpx2.Response:
        tries.append(1)
        raise raised

    with pytest.raises(errors.BackendUnavailableError):
        await get(transport_answering(handler))
    assert len(tries) == 3


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, errors.BackendRejectedError),
        (401, errors.BackendAuthError),
        (403, errors.BackendRejectedError),
        (404, errors.BackendNotFoundError),
        (409, errors.BackendConflictError),
        (422, errors.BackendRejectedError),
    ],
)
async def test_a_refusal_is_not_tried_again_and_has_its_error(
    status: int, expected: type[errors.BackendError]
) -> None:
    tries: list[int] = []

    def handler(_: httpx2.Request) -> httpx2.Response:
        tries.append(1)
        return httpx2.Response(status, json={"error": "PRIVATE WORDS", "code": "some_code"})

    with pytest.raises(errors.BackendError) as caught:
        await get(transport_answering(handler))
    assert type(caught.value) is expected
    assert len(tries) == 1
    assert caught.value.details["status"] == status
    assert caught.value.details["backend_code"] == "some_code"
    assert "PRIVATE WORDS" not in repr(caught.value)


@pytest.mark.parametrize(
    ("path", "variable"),
    [("/api/mission-control/tasks", "AGENT_JWT_SECRET"),
     ("/api/mission-control/dispatch/undelivered", "INTERNAL_API_TOKEN")],
)  # fmt: skip
async def test_a_401_says_which_variable_to_set(path: str, variable: str) -> None:
    with pytest.raises(errors.BackendAuthError, match=variable):
        await get(transport_answering(lambda _: httpx2.Response(401)), path)


@pytest.mark.parametrize("body", [b"<html>", b"[1]", b'"x"'])
async def test_a_body_that_is_not_a_json_object_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(errors.BackendProtocolError):
        await get(transport_answering(lambda _: httpx2.Response(200, content=body)))


async def test_a_deprecation_warning_is_logged_once_an_endpoint(
    caplog: pytest.LogCaptureFixture,
) -> None:
    import structlog.testing

    headers = {"warning": '299 - "deprecated"'}
    transport = transport_answering(lambda _: httpx2.Response(200, json={}, headers=headers))
    with structlog.testing.capture_logs() as logs:
        await get(transport)
        await get(transport)
        await get(transport, "/y")
    assert [entry["endpoint"] for entry in logs] == ["GET /x", "GET /y"]
