"""HTTP to the backend: retries and errors."""

import asyncio
from collections.abc import Callable

import aiohttp
import httpx2
import pytest
import stamina

from clasper_worker import errors
from clasper_worker.engine.circuit.gate import HostGate
from clasper_worker.engine.circuit.policy import GatePolicy
from clasper_worker.mission_control.transport import BackendTransport
from tests.unit.engine.circuit.simulation import SharedStore, Worker
from tests.unit.engine.circuit.virtual_time import run_virtually

Handler = Callable[[httpx2.Request], httpx2.Response]


def transport_answering(
    handler: Handler, *, attempts: int = 3, gate: HostGate | None = None
) -> BackendTransport:
    client = httpx2.AsyncClient(
        base_url="http://backend.test", transport=httpx2.MockTransport(handler)
    )
    return BackendTransport(client, attempts=attempts, max_wait_seconds=0.001, gate=gate)


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


async def test_an_answer_that_would_hold_the_loop_is_a_protocol_error() -> None:
    many = b'{"items": [' + b"{}," * 200_000 + b"{}]}"
    for body in (many, b"[" * 100_000, b" " * (24 * 1024 * 1024 + 1)):

        def handler(_: httpx2.Request, body: bytes = body) -> httpx2.Response:
            return httpx2.Response(200, content=body)

        with pytest.raises(errors.BackendProtocolError):
            await get(transport_answering(handler))


async def test_a_long_conversation_is_read() -> None:
    for said in ('say "{words}", and more. ' * 4_000, "1,2,3\n" * 16_000, '{"a": [1]},' * 8_000):
        page = {"items": [{"id": str(number), "content": said} for number in range(50)]}
        answer = httpx2.Response(200, json=page)
        assert await get(transport_answering(lambda _, answer=answer: answer)) == page  # type: ignore[misc]


async def test_the_code_of_an_error_too_deep_to_read_is_not_told() -> None:
    answer = httpx2.Response(400, content=b"[" * 60_000)
    with pytest.raises(errors.BackendRejectedError):
        await get(transport_answering(lambda _: answer))


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


def test_during_an_outage_requests_wait_at_the_gate_and_get_their_headers_anew() -> None:
    tokens = iter(f"token-{number}" for number in range(1000))
    sent: list[tuple[str, bytes, float]] = []

    async def main() -> list[dict[str, object]]:
        loop = asyncio.get_running_loop()
        well_at = loop.time() + 120

        def handler(request: httpx2.Request) -> httpx2.Response:
            sent.append((request.headers["x-agent-token"], request.content, loop.time()))
            status = 200 if loop.time() >= well_at else 503
            return httpx2.Response(status, json={"id": "1"})

        worker = Worker(SharedStore())
        transport = transport_answering(handler, gate=worker.gate)
        answers = await asyncio.gather(
            *(
                transport.request(
                    "POST", "/x", headers=lambda: {"X-Agent-Token": next(tokens)}, body={"a": 1}
                )
                for _ in range(100)
            )
        )
        await worker.gates.close()
        return answers

    assert run_virtually(main()) == [{"id": "1"}] * 100
    assert {content for _, content, _ in sent} == {b'{"a":1}'}
    assert len({token for token, _, _ in sent}) == len(sent)
    assert len(sent) < 100 + 100 + 20  # all at once, then probes, then all again


async def fail(transport: BackendTransport, times: int, *, alone: bool) -> None:
    for _ in range(times):
        with pytest.raises(errors.BackendUnavailableError):
            await transport.request("POST", "/x", headers=dict, alone=alone)


@pytest.mark.parametrize(("alone", "is_open"), [(True, False), (False, True)])
def test_an_endpoint_whose_errors_are_its_own_keeps_no_others_waiting(
    alone: bool, is_open: bool
) -> None:
    async def main() -> bool:
        worker = Worker(SharedStore(), GatePolicy(wait=1))
        transport = transport_answering(
            lambda _: httpx2.Response(500), attempts=1, gate=worker.gate
        )
        await fail(transport, 20, alone=alone)
        found = worker.gate.state.is_open
        await worker.gates.close()
        return found

    assert run_virtually(main()) is is_open


def test_an_endpoint_whose_errors_are_its_own_waits_in_an_outage_and_does_not_end_it() -> None:
    async def main() -> tuple[int, int]:
        sent: list[httpx2.Request] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            sent.append(request)
            return httpx2.Response(500)

        worker = Worker(SharedStore(), GatePolicy(wait=5))
        transport = transport_answering(handler, attempts=1, gate=worker.gate)
        await fail(transport, 4, alone=False)
        sent.clear()
        before = worker.gate.state.trips
        await fail(transport, 1, alone=True)
        trips = worker.gate.state.trips - before
        await worker.gates.close()
        return len(sent), trips

    probes, trips = run_virtually(main())
    assert trips == probes
    assert 1 <= probes <= 3


def test_a_retry_after_stops_all_requests_until_then() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        answers = [httpx2.Response(429, headers={"retry-after": "30"})]
        times: list[float] = []

        def handler(_: httpx2.Request) -> httpx2.Response:
            times.append(loop.time())
            return answers.pop() if answers else httpx2.Response(200, json={})

        worker = Worker(SharedStore())
        transport = transport_answering(handler, attempts=1, gate=worker.gate)
        await get(transport)
        await worker.gates.close()
        return times[1] - times[0]

    assert run_virtually(main()) >= 30


def test_a_backend_that_stays_away_is_unavailability_with_the_last_answers_status() -> None:
    async def main() -> errors.BackendUnavailableError:
        worker = Worker(SharedStore(), GatePolicy(failures=1, wait=20))
        transport = transport_answering(lambda _: httpx2.Response(503), gate=worker.gate)
        with pytest.raises(errors.BackendUnavailableError) as caught:
            await get(transport)
        with pytest.raises(errors.BackendUnavailableError):
            await get(transport)
        await worker.gates.close()
        return caught.value

    assert run_virtually(main()).details["status"] == 503


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/api/mission-control/messages", "leave history out of the features"),
        ("/api/mission-control/notifications", "leave notifications out of the features"),
        ("/api/mission-control/tasks", None),
    ],
)
async def test_a_feature_that_is_told_of_and_not_offered_is_named(
    path: str, told: str | None
) -> None:
    transport = transport_answering(lambda _: httpx2.Response(404))
    with pytest.raises(errors.BackendNotFoundError) as caught:
        await get(transport, path)
    assert (told or "") in str(caught.value)
    assert ("features" in str(caught.value)) is (told is not None)


@pytest.mark.parametrize("fault", [500, 502, httpx2.ReadTimeout("x"), httpx2.ReadError("x")])
def test_one_users_request_that_fails_again_and_again_keeps_nobody_else_waiting(
    fault: int | Exception,
) -> None:
    async def main() -> tuple[bool, int, dict[str, object]]:
        asked: list[str] = []

        def handler(request: httpx2.Request) -> httpx2.Response:
            asked.append(request.url.path)
            if request.url.path != "/poison":
                return httpx2.Response(404 if "capabilities" in request.url.path else 200, json={})
            if isinstance(fault, Exception):
                raise fault
            return httpx2.Response(fault)

        worker = Worker(SharedStore(), GatePolicy(wait=20))
        transport = transport_answering(handler, attempts=1, gate=worker.gate)
        for _ in range(20):
            with pytest.raises(errors.BackendUnavailableError):
                await transport.request("POST", "/poison", headers=dict, who="u1")
        is_open = worker.gate.state.is_open
        well = await transport.request("POST", "/x", headers=dict, who="u2")
        await worker.gates.close()
        return is_open, asked.count("/api/mission-control/capabilities"), well

    is_open, second_opinions, well = run_virtually(main())
    assert not is_open
    assert 1 <= second_opinions <= 5  # at the brink alone
    assert well == {}


def test_requests_of_several_users_that_fail_in_a_row_are_an_outage() -> None:
    async def main() -> bool:
        def handler(request: httpx2.Request) -> httpx2.Response:
            return httpx2.Response(200 if "capabilities" in request.url.path else 500, json={})

        worker = Worker(SharedStore(), GatePolicy(wait=1))
        transport = transport_answering(handler, attempts=1, gate=worker.gate)
        for number in range(4):
            with pytest.raises(errors.BackendUnavailableError):
                await transport.request("POST", "/x", headers=dict, who=f"u{number % 2}")
        found = worker.gate.state.is_open
        await worker.gates.close()
        return found

    assert run_virtually(main())


@pytest.mark.parametrize("fault", [503, httpx2.ConnectError("x")])
def test_an_outage_is_one_for_a_lone_user_too(fault: int | Exception) -> None:
    async def main() -> bool:
        def handler(_: httpx2.Request) -> httpx2.Response:
            if isinstance(fault, Exception):
                raise fault
            return httpx2.Response(fault)

        worker = Worker(SharedStore(), GatePolicy(wait=1))
        transport = transport_answering(handler, attempts=1, gate=worker.gate)
        for _ in range(4):
            with pytest.raises(errors.BackendUnavailableError):
                await transport.request("POST", "/x", headers=dict, who="u1")
        found = worker.gate.state.is_open
        await worker.gates.close()
        return found

    assert run_virtually(main())


async def test_half_a_surrogate_pair_in_a_body_is_sent_as_the_replacement_character() -> None:
    sent: list[bytes] = []

    def handler(request: httpx2.Request) -> httpx2.Response:
        sent.append(request.content)
        return httpx2.Response(500 if len(sent) == 1 else 200, json={})

    await transport_answering(handler).request(
        "POST", "/x", headers=dict, body={"content": "a\ud83d"}
    )
    assert sent == ['{"content":"a\ufffd"}'.encode()] * 2
