"""Polls of the dispatcher, over the reference backend and a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, cast

import httpx2
import pytest
import stamina

from clasper_worker.devkit.reference_backend.app import create_app
from clasper_worker.devkit.reference_backend.config import BackendConfig
from clasper_worker.errors import (
    BackendUnavailableError,
    ConfigurationError,
    LaneFullError,
    ModelRejectedError,
    StateUnavailableError,
)
from clasper_worker.mission_control.internal import InternalBackend
from clasper_worker.mission_control.transport import BackendTransport
from clasper_worker.periodic.acknowledge import Acknowledgements, pause_after
from clasper_worker.periodic.dispatch import Dispatcher, DispatchRules
from clasper_worker.periodic.notes import Slots
from clasper_worker.periodic.notification import NotificationKey, notification_of

Interceptor = Callable[[httpx2.Request], httpx2.Response | None]
INTERNAL = {"X-Internal-Token": "internal"}


class Wire(httpx2.AsyncBaseTransport):
    """To the backend, unless a test answers in its place."""

    def __init__(self) -> None:
        app = create_app(BackendConfig("a" * 32, internal_api_token="internal"))
        self._backend = httpx2.ASGITransport(app)
        self.requests: list[httpx2.Request] = []
        self.instead: Interceptor = lambda _: None

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        return self.instead(request) or await self._backend.handle_async_request(request)

    @property
    def polls(self) -> list[httpx2.Request]:
        return [one for one in self.requests if one.url.path.endswith("/undelivered")]


@dataclass
class Site:
    wire: Wire
    client: httpx2.AsyncClient
    slots: Slots
    queue: Any
    rules: DispatchRules = field(default_factory=DispatchRules)
    token: str | None = "internal"

    @property
    def backend(self) -> InternalBackend:
        transport = BackendTransport(self.client, attempts=1)
        return InternalBackend(transport, self.token)

    @property
    def dispatcher(self) -> Dispatcher:
        return Dispatcher(self.backend, self.slots, self.queue, self.rules)

    async def notify(self, user: str, content: str = "Hello", **fields: Any) -> str:
        body = {"user_id": user, "content": content, **fields}
        url = "/api/mission-control/notifications"
        answer = await self.client.post(url, json=body, headers=INTERNAL)
        return str(answer.raise_for_status().json()["id"])

    async def poll(self, holder: str = "p") -> Any:
        return await self.dispatcher.poll(holder, at_once=True)

    @property
    def enqueued(self) -> list[str]:
        """The notifications that were enqueued, in order."""
        keys = [notification_of(job.mark, job.arguments) for job in self.queue.jobs]
        return [key.notification_id for key in keys if key]


@pytest.fixture
async def site(slots: Slots, queue: Any) -> AsyncIterator[Site]:
    wire = Wire()
    async with httpx2.AsyncClient(base_url="http://backend.test", transport=wire) as client:
        with stamina.set_testing(testing=True, attempts=1):
            yield Site(wire, client, slots, queue)


async def test_each_notification_becomes_one_turn_on_the_dispatch_queue(site: Site) -> None:
    one, two = await site.notify("u1"), await site.notify("u2", task_title="T")
    poll = await site.poll()
    assert (poll.found, poll.enqueued) == (2, 2)
    assert site.enqueued == [one, two]
    assert {(job.task, job.queue) for job in site.queue.jobs} == {
        ("clasper.send", "clasper.dispatch")
    }
    again = await site.poll()
    assert (again.found, again.enqueued) == (2, 0)


async def test_many_are_found_past_those_under_way_in_their_users_order(site: Site) -> None:
    site.rules = DispatchRules(users=3, notifications=2)
    sent = [(user, await site.notify(user)) for _ in range(3) for user in map(str, range(10))]
    poll = await site.poll()
    assert poll.enqueued == 30
    assert poll.pages <= 5
    for user in map(str, range(10)):
        own = [one for whose, one in sent if whose == user]
        assert [one for one in site.enqueued if one in own] == own


async def test_the_first_of_each_session_comes_before_the_second_of_any(site: Site) -> None:
    contents = [(user, f"{user} {number}") for user in ("u1", "u2", "u3") for number in range(3)]
    for user, content in contents:
        await site.notify(user, content)
    await site.poll()
    enqueued = [job.arguments["message"] for job in site.queue.jobs]
    assert [message.split()[1] for message in enqueued] == list("000111222")
    assert sorted(enqueued) == [content for _, content in contents]


async def test_a_session_gets_no_more_turns_than_its_lane_holds(site: Site) -> None:
    site.rules = DispatchRules(in_session=3)
    sent = [await site.notify("u1") for _ in range(5)]
    assert (await site.poll()).enqueued == 3
    await site.backend.deliver(sent[0], "u1")
    assert (await site.poll()).enqueued == 1
    assert site.enqueued == sent[:4]


async def test_one_poll_runs_at_a_time(site: Site) -> None:
    await site.notify("u1")
    polls = await asyncio.gather(*(site.dispatcher.poll(str(n), at_once=True) for n in range(5)))
    assert sorted(poll.outcome for poll in polls) == ["elsewhere"] * 4 + ["polled"]
    assert len(site.queue.jobs) == 1


async def test_ticks_of_another_beat_find_that_it_was_polled_just_now(site: Site) -> None:
    site.rules = DispatchRules(min_interval=60, max_interval=60)
    outcomes = [(await site.dispatcher.poll("p")).outcome for _ in range(3)]
    assert outcomes == ["polled", "too_soon", "too_soon"]
    assert len(site.wire.polls) == 1


async def test_empty_polls_come_later_and_later_and_a_full_one_sooner(site: Site) -> None:
    async def pause() -> float:
        await site.poll()
        (text,) = await site.slots.read(["dispatch:pause"])
        return float(text or 0)

    assert [await pause() for _ in range(6)] == [2, 4, 8, 16, 30, 30]
    await site.notify("u1")
    assert await pause() == 2


async def test_a_backend_that_wants_post_is_asked_by_post_from_then_on(site: Site) -> None:
    def instead(request: httpx2.Request) -> httpx2.Response | None:
        is_get = request.method == "GET" and request.url.path.endswith("/undelivered")
        return httpx2.Response(405) if is_get else None

    site.wire.instead = instead
    await site.notify("u1")
    dispatcher = site.dispatcher
    assert (await dispatcher.poll("p", at_once=True)).enqueued == 1
    await dispatcher.poll("p", at_once=True)
    assert [request.method for request in site.wire.polls] == ["GET", "POST", "POST"]


@pytest.mark.parametrize("capabilities", [{"features": {"tasks": True}}, None])
async def test_a_backend_without_the_feature_is_asked_rarely(
    site: Site, capabilities: dict[str, Any] | None
) -> None:
    def instead(request: httpx2.Request) -> httpx2.Response | None:
        if request.url.path.endswith("/capabilities") and capabilities:
            return httpx2.Response(200, json=capabilities)
        return httpx2.Response(404)

    site.wire.instead = instead
    assert (await site.poll()).outcome == "unsupported"
    assert (await site.dispatcher.poll("p")).outcome == "too_soon"
    assert await site.slots.read(["dispatch:pause"]) == ["300"]
    # Where it does not say what it has, it was tried.
    assert len(site.wire.polls) == (0 if capabilities else 2)


async def test_a_failing_backend_is_an_error_and_left_alone_for_longer(site: Site) -> None:
    site.wire.instead = lambda _: httpx2.Response(503)
    for expected in ("2", "4"):
        with pytest.raises(BackendUnavailableError):
            await site.poll()
        assert await site.slots.read(["dispatch:pause"]) == [expected]
    async with site.slots.lock("dispatch", "other") as free:
        assert free


async def test_without_an_internal_token_the_variable_is_named(site: Site) -> None:
    site.token = None
    with pytest.raises(ConfigurationError, match="INTERNAL_API_TOKEN"):
        await site.poll()


async def test_what_is_malformed_goes_to_fail_once_and_holds_up_nobody(site: Site) -> None:
    good = {"notification_id": "n", "user_id": "u", "content": "Hi"}
    listed = [{"notification_id": "bad", "user_id": "u"}, "nonsense", good]

    def instead(request: httpx2.Request) -> httpx2.Response | None:
        is_poll = request.url.path.endswith("/undelivered")
        return httpx2.Response(200, json={"deliveries": listed}) if is_poll else None

    site.wire.instead = instead
    poll = await site.poll()
    assert (poll.enqueued, poll.malformed) == (1, 2)
    again = await site.poll()
    assert (again.enqueued, again.malformed) == (0, 0)
    assert len(site.queue.jobs) == 3


async def test_what_could_not_be_enqueued_is_not_noted_and_enqueued_by_the_next_poll(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = NotificationKey("u1", await site.notify("u1"))

    async def away(_: Any) -> None:
        assert await site.slots.read([key.note]) == [None]
        raise StateUnavailableError("away")

    with monkeypatch.context() as patched:
        patched.setattr(site.queue, "put", away)
        with pytest.raises(StateUnavailableError):
            await site.poll()
    assert (await site.poll()).enqueued == 1
    assert await site.slots.read([key.note]) == ["enqueued"]


async def test_a_reply_that_is_posted_has_the_notification_acknowledged_at_once(
    site: Site,
) -> None:
    key = NotificationKey("u1", await site.notify("u1"))
    await Acknowledgements(site.slots, site.queue).answered(key, site.backend)
    assert site.queue.jobs == []
    assert (await site.poll()).found == 0
    assert await site.slots.read([key.note]) == ["delivered"]


async def test_what_the_backend_does_not_take_at_once_is_acknowledged_by_a_job(site: Site) -> None:
    notification = await site.notify("u1")
    key = NotificationKey("u1", notification)
    ends = Acknowledgements(site.slots, site.queue)
    site.wire.instead = lambda _: httpx2.Response(500, json={"error": "down"})
    await ends.answered(key, site.backend)
    (job,) = site.queue.jobs
    assert (job.task, job.queue) == ("clasper.delivered", "clasper.periodic")
    assert job.arguments == {"user_id": "u1", "notification_id": notification}
    site.wire.instead = lambda _: None
    assert (await site.poll()).enqueued == 0  # it is seen to
    site.wire.instead = lambda _: httpx2.Response(500, json={"error": "down"})
    with pytest.raises(BackendUnavailableError):
        await ends.acknowledge(site.backend, key)
    site.wire.instead = lambda _: None
    await ends.acknowledge(site.backend, key)
    assert (await site.poll()).found == 0
    await ends.acknowledge(site.backend, key)  # a second time
    await ends.acknowledge(site.backend, NotificationKey("u1", "gone"))


async def test_a_worker_without_the_internal_token_leaves_the_acknowledgement_to_a_job(
    site: Site,
) -> None:
    key = NotificationKey("u1", await site.notify("u1"))
    site.token = None
    await Acknowledgements(site.slots, site.queue).answered(key, site.backend)
    assert [job.task for job in site.queue.jobs] == ["clasper.delivered"]


async def test_a_turn_that_is_cancelled_while_it_acknowledges_leaves_that_to_a_job(
    site: Site,
) -> None:
    key = NotificationKey("u1", await site.notify("u1"))
    asked = asyncio.Event()

    class Hanging:
        async def deliver(self, *_: str) -> None:
            asked.set()
            await asyncio.Event().wait()

    ends = Acknowledgements(site.slots, site.queue)
    turn = asyncio.create_task(ends.answered(key, cast("InternalBackend", Hanging())))
    await asked.wait()
    turn.cancel()
    with pytest.raises(asyncio.CancelledError):
        await turn
    assert [job.task for job in site.queue.jobs] == ["clasper.delivered"]


@pytest.mark.parametrize("answer", [b"", b"OK", b"[]"])
async def test_an_acknowledgement_may_be_answered_without_json(site: Site, answer: bytes) -> None:
    site.wire.instead = lambda _: httpx2.Response(200, content=answer)
    key = NotificationKey("u1", "n1")
    await Acknowledgements(site.slots, site.queue).acknowledge(site.backend, key)
    assert await site.slots.read([key.note]) == ["delivered"]


@pytest.mark.parametrize("error", [LaneFullError("x"), ModelRejectedError("x")])
async def test_a_turn_that_failed_is_not_acknowledged_and_left_alone_for_a_while(
    site: Site, error: Any
) -> None:
    notification = await site.notify("u1")
    key = NotificationKey("u1", notification)
    await Acknowledgements(site.slots, site.queue).failed(key, error)
    assert site.queue.jobs == []
    assert (await site.poll()).enqueued == 0
    await site.slots.release(key.note, "failed")  # its time is over
    assert (await site.poll()).enqueued == 1


def test_acknowledging_is_tried_again_ever_more_slowly_and_not_for_ever() -> None:
    pauses = [pause_after(attempt) for attempt in range(1, 13)]
    assert pauses[:4] == [1, 2, 4, 8]
    assert max(pause for pause in pauses if pause) == 30
    assert pauses[-1] is None
