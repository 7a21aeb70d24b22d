"""Whatever producers, workers and accidents do in whatever order, the scheduler keeps its word."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import redis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from clasper_worker.engine.queue.policy import ScheduleRules
from clasper_worker.engine.queue.queue_status import READ_STATUS, broker_status_of
from clasper_worker.engine.queue.scheduler_types import Burial, Delivery, Exchanged
from tests.examples import examples
from tests.unit.engine.queue.turns import Broker, job_of

QUEUES = ("clasper", "clasper.dispatch", "clasper.periodic")
CAP, DEPTH, ATTEMPTS = 2, 4, 3
workers = st.sampled_from([QUEUES, QUEUES[:1], QUEUES[1:]])


class Scheduling(RuleBasedStateMachine):
    """A broker, and what its producers and workers know of it."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__()
        client.flushall()
        self.client = client
        self.broker = Broker(client, queues=QUEUES)
        self.broker.rules = ScheduleRules(
            tenant_concurrency=CAP, lane_depth=DEPTH, attempts=ATTEMPTS
        )
        self.sent: dict[str, tuple[str, str]] = {}  # job: session and queue, in order
        self.keyed: list[dict[str, Any]] = []  # requests that have a key
        self.open: set[str] = set()  # neither settled nor dead
        self.held: dict[str, Delivery] = {}
        self.lost: list[str] = []  # tokens of deliveries that were taken back
        self.passed: set[str] = set()  # settled, refused or dead
        self.cancelled: set[str] = set()

    # What happens

    @rule(
        user=st.sampled_from("uv"),
        role=st.sampled_from("ab"),
        queue=st.sampled_from(QUEUES),
        busy=st.sampled_from(["", "collect", "collect", "reject", "interrupt"]),
        keyed=st.booleans(),
    )
    def send(self, user: str, role: str, queue: str, busy: str, keyed: bool) -> None:
        job = f"{len(self.sent):03}"
        self.sent[job] = (f"{user}/{role}", queue)
        self.open.add(job)
        # Tags of our choice, so that the same steps do the same whenever they are repeated.
        more: dict[str, Any] = {"tag": f"tag-{job}", "metadata": {"busy": busy}}
        request = {"user": user, "role": role, "queue": queue, **more}
        if keyed:
            request["idempotency_key"] = f"key of {job}"
            self.keyed.append(request)
        self.broker.send(job, **request)

    @rule(index=st.integers(0, 9), times=st.integers(1, 3))
    def ask_for_a_turn_again(self, index: int, times: int) -> None:
        """Its newest askers, most often: those whose turn may not be over."""
        for _ in range(times if self.keyed else 0):
            request = self.keyed[-1 - index % len(self.keyed)]
            job = f"{len(self.sent):03}"
            self.sent[job] = (f"{request['user']}/{request['role']}", request["queue"])
            self.open.add(job)
            self.broker.send(job, **{**request, "tag": f"tag-{job}"})

    @rule(user=st.sampled_from("uv"), role=st.sampled_from("ab"))
    def send_some_to_collect(self, user: str, role: str) -> None:
        for _ in range(3):
            self.send(user, role, QUEUES[0], "collect", keyed=False)

    @rule(queue=st.sampled_from(QUEUES))
    def send_junk(self, queue: str) -> None:
        self.broker.push(b"junk", queue)

    @rule(
        queues=workers,
        free=st.integers(0, 4),
        intake=st.integers(0, 8),
        give_back=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=3),
    )
    def exchange(
        self, queues: Sequence[str], free: int, intake: int, give_back: list[tuple[int, bool]]
    ) -> None:
        settled: list[str] = []
        released: list[str] = []
        for index, is_done in give_back:
            if self.held:
                token = sorted(self.held)[index % len(self.held)]
                (settled if is_done else released).append(token)
                self._end(token, is_done=is_done)
        found = self.broker.schedule(queues=queues).exchange(
            settled=settled, released=released, free=free, intake=intake
        )
        assert len(found.deliveries) <= free
        self._receive(found)
        if len(found.deliveries) < free:
            self._assert_all_that_may_run_runs(queues)

    @rule(index=st.integers(0, 9), settles=st.booleans())
    def a_worker_comes_back_from_the_dead(self, index: int, settles: bool) -> None:
        self.lose_a_worker(index, flushed=False)
        self._receive(self.broker.take(10))
        for token in self.lost[-1:]:
            settled, released = ([token], []) if settles else ([], [token])
            self._receive(self.broker.take(0, intake=0, settled=settled, released=released))
            assert self.broker.schedule().refresh([token]) == (token,)
            assert not self.broker.schedule().bury(token, "not mine")

    @rule()
    def withdraw_a_group_that_was_released(self) -> None:
        for token, delivery in list(self.held.items()):
            if delivery.collected:
                self._end(token, is_done=False)
                self.broker.take(0, intake=0, released=[token])
                assert self.broker.schedule().withdraw(job_of(delivery)) == "withdrawn"
                self.cancelled.add(job_of(delivery))

    @rule(stay=st.integers(0, 2))
    def part_groups(self, stay: int) -> None:
        for token, delivery in self.held.items():
            leaving = [_job(raw) for raw in delivery.collected[stay:]]
            left = self.broker.schedule().part(token, leaving)
            assert left == len(self.open.intersection(leaving) - self.cancelled)
            self.held[token] = replace(delivery, collected=delivery.collected[:stay])

    @rule()
    def set_the_clock_back(self) -> None:
        hour = 3_600_000
        self.broker.look_after_leases()
        self.client.incrby("clasper:leases:pulse", hour)
        for tag in self.client.zrange("clasper:leases", 0, -1):
            self.client.zincrby("clasper:leases", hour, tag)
        assert self._reap() == 0
        seconds, _ = self.client.time()
        soon = seconds * 1000 + 60_000
        assert self.client.zcount("clasper:leases", soon, "+inf") == 0

    @rule()
    def replay(self) -> None:
        for letter, about in self.broker.dead().items():
            if about["job"]:
                assert self.broker.schedule().replay(letter) == "replayed"
                self.open.add(about["job"])
                self.cancelled.discard(about["job"])

    @rule()
    def refresh(self) -> None:
        assert self.broker.schedule().refresh(self.held) == ()

    @rule(index=st.integers(0, 9), flushed=st.booleans())
    def lose_a_worker(self, index: int, flushed: bool) -> None:
        if flushed:
            self.client.delete("clasper:leases", "clasper:leases:pulse", "clasper:leases:hold")
            assert self._reap() == 0
        if not self.held:
            return
        token = sorted(self.held)[index % len(self.held)]
        self.broker.lapse(token)
        assert self._reap() == 1
        self.held.pop(token)
        self.lost.append(token)

    @rule(index=st.integers(0, 9))
    def bury(self, index: int) -> None:
        if self.held:
            token = sorted(self.held)[index % len(self.held)]
            assert self.broker.schedule().bury(token, "a reason")
            self._end(token, is_done=True)

    @rule(index=st.integers(0, 20))
    def withdraw(self, index: int) -> None:
        if not self.open:
            return
        job = sorted(self.open)[index % len(self.open)]  # small: those first that have run
        answer = self.broker.schedule().withdraw(job)
        if answer == "running":
            assert job in {job_of(delivery) for delivery in self.held.values()}
        else:
            assert answer == "unknown" if job in self._queued() else answer != "unknown"
            self.cancelled.add(job)  # it comes with that verdict

    # What must hold

    @invariant()
    def every_message_is_in_one_place(self) -> None:
        places = Counter(self._queued())
        lanes: Counter[str] = Counter()
        for key in self.client.keys("clasper:lane:*"):
            head, *waiting = self._jobs(self.client.lrange(key, 0, -1))
            lanes.update([head])
            places.update(waiting)
        for key in self.client.keys("clasper:ready:*"):
            places.update(self._jobs(self.client.lrange(key, 0, -1)))
        places.update(self._jobs(self.client.lrange("clasper:suspects", 0, -1)))
        running = self._jobs(self.client.smembers("clasper:running"))
        places.update(running)
        for tag in self.client.smembers("clasper:running"):
            assert self.client.zscore("clasper:leases", tag) is not None
        for key in self.client.keys("clasper:message:*"):
            group = self.client.hget(key, "g")
            members = json.loads(group) if group else []
            known = [tag for tag in members if self.client.exists(f"clasper:message:{tag}")]
            places.update(self._jobs([tag.encode() for tag in known]))
        assert places == Counter(self.open)
        assert sorted(running) == sorted(job_of(one) for one in self.held.values())
        assert set(lanes) <= set(places)

    @invariant()
    def every_message_is_counted_where_it_is(self) -> None:
        running = self.client.smembers("clasper:running")
        found: dict[tuple[str, str], set[bytes]] = {}
        lists = {*self.client.keys("clasper:ready:*")}
        ready = {tag for key in lists for tag in self.client.lrange(key, 0, -1)}
        for key in self.client.keys("clasper:message:*"):
            tag = key.removeprefix(b"clasper:message:")
            where = "running" if tag in running else "ready" if tag in ready else "behind"
            queue = self.client.hget(key, "q").decode()
            found.setdefault((where, queue), set()).add(tag)
        status = broker_status_of(self.client.eval(READ_STATUS, 0, *QUEUES)).queues
        for queue in QUEUES:
            for where in ("ready", "behind"):
                counted = set(self.client.zrange(f"clasper:depth:{where}:{queue}", 0, -1))
                assert counted == found.get((where, queue), set())
            assert status[queue].running == len(found.get(("running", queue), ()))

    @invariant()
    def one_turn_of_a_session_runs_and_no_more_of_a_user_than_the_cap(self) -> None:
        taken = [one for one in self.held.values() if not one.verdict]
        sessions = Counter(self.sent[job_of(one)][0] for one in taken)
        assert all(count == 1 for count in sessions.values())
        tags = [token.rpartition("#")[0] for token in self.held]
        owners = [self.client.hget(f"clasper:message:{tag}", "t").decode() for tag in tags]
        users = Counter(filter(None, owners))  # what is refused has none
        assert all(count <= CAP for count in users.values())
        inflight = self.client.hgetall("clasper:inflight")
        assert {user.decode(): int(count) for user, count in inflight.items()} == users

    def teardown(self) -> None:
        """When all workers go on, all that is left runs, and nothing of it stays behind."""
        try:
            for _ in range(1000):
                settled = list(self.held)
                for token in settled:
                    self._end(token, is_done=True)
                found = self.broker.take(10, settled=settled)
                self._receive(found)
                if not found.deliveries and not found.more:
                    break
            self._reap()
            assert not self.open
            left = self.broker.left()
            letters = {key for key in left if key.startswith("clasper:dead")}
            assert left - letters <= {"clasper:cancelled"}
        finally:
            self.client.flushall()

    # How it is followed

    def _receive(self, found: Exchanged) -> None:
        for delivery in found.deliveries:
            job = job_of(delivery)
            assert delivery.token not in self.held
            assert job in self.open
            if not delivery.verdict:
                assert job not in self.cancelled
                self._assert_in_order(job)
            self.held[delivery.token] = delivery

    def _end(self, token: str, *, is_done: bool) -> None:
        delivery = self.held.pop(token)
        self.lost.append(token)
        if is_done:
            members = {_job(raw) for raw in delivery.collected}
            for job in {job_of(delivery), *(members - self.cancelled)}:  # those come by themselves
                self.open.discard(job)
                self.passed.add(job)

    def _reap(self) -> int:
        lapsed, buried = self.broker.schedule().reap()
        self._bury(buried)
        self.broker.schedule().told(buried)
        return lapsed

    def _bury(self, buried: Sequence[Burial]) -> None:
        for burial in buried:
            self.open.discard(burial.job_id)
            self.passed.add(burial.job_id)

    def _assert_in_order(self, job: str) -> None:
        """Those of its session that came before it through the same queue are over."""
        earlier = {one for one, where in self.sent.items() if where == self.sent[job] and one < job}
        assert earlier <= self.passed | self.cancelled | self._refused()

    def _refused(self) -> set[str]:
        held = {job_of(one) for one in self.held.values() if one.verdict}
        ready = {
            self.client.hget(key, "j").decode()
            for key in self.client.keys("clasper:message:*")
            if self.client.hget(key, "v")
        }
        return held | ready

    def _assert_all_that_may_run_runs(self, queues: Sequence[str]) -> None:
        for queue in queues:
            for key in self.client.keys(f"clasper:ready:{queue}:*"):
                user = key.rpartition(b":")[2]
                assert int(self.client.hget("clasper:inflight", user)) >= CAP

    def _queued(self) -> list[str]:
        raws = [raw for queue in QUEUES for raw in self.client.lrange(queue, 0, -1)]
        return [_job(raw) for raw in raws if raw != b"junk"]

    def _jobs(self, tags: Sequence[bytes]) -> list[str]:
        with self.client.pipeline(transaction=False) as pipe:
            for tag in tags:
                pipe.hget(b"clasper:message:" + tag, "j")
            return [job.decode() for job in pipe.execute()]


def _job(raw: bytes) -> str:
    return str(json.loads(raw)["headers"]["id"])


def test_no_message_is_lost_doubled_or_out_of_order(redis_client: redis.Redis) -> None:
    run_state_machine_as_test(
        partial(Scheduling, redis_client),
        settings=settings(max_examples=examples(30), stateful_step_count=50),
    )
