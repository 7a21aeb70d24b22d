"""RabbitMQ as the broker: turns, faults, cancellation, the clock, Flower."""

import secrets
import signal
import subprocess
import sys
from typing import Any

import pytest
from celery.result import AsyncResult
from kombu import Connection, Exchange, Queue

from clasper_worker.engine.queue.cancel import Canceller
from clasper_worker.engine.queue.identity import turn_id_for
from tests.integration.turn.conftest import Processes, answers, free_port
from tests.rabbitmq import RabbitMQ
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.needs_services,
    # Celery's result backend, with redis-py 8.
    pytest.mark.filterwarnings("ignore:Call to deprecated setex:DeprecationWarning"),
]

SOON = {"DISPATCH_MIN_INTERVAL_SEC": "0.5", "DISPATCH_MAX_INTERVAL_SEC": "1"}


def send(processes: Processes, user: str, message: str = "Hello", **fields: Any) -> AsyncResult:
    kwargs = {"user_id": user, "task_title": "T", "message": message, **fields}
    return processes.app.send_task("clasper.send", kwargs=kwargs, queue="clasper")


def ended(turns: list[AsyncResult]) -> list[str]:
    return [turn.get(timeout=120)["response"] for turn in turns]


def test_turns_survive_a_killed_worker_closed_connections_and_a_restarted_server(
    processes: Processes, rabbitmq: RabbitMQ
) -> None:
    user = secrets.token_hex(8)
    slow = {"CLASPER_LLM_TIMEOUT_SEC": "60"}
    command = ("celery", "-A", "clasper_worker", "worker", "-n", "killed@test", "-l", "INFO")
    with processes.running("killed", *command, **slow) as killed:
        turns = [send(processes, user, f"Please note {n}.", agent_role=f"r{n}") for n in range(20)]
        until(lambda: any(turn.state != "PENDING" for turn in turns), "some have begun")
        killed.kill()
        killed.wait(30)
    with processes.worker("living"):
        turns += [send(processes, user, f"Also {n}.", agent_role=f"s{n}") for n in range(10)]
        rabbitmq.close_connections()
        ended(turns)
        rabbitmq.restart()
        turns += [send(processes, user, f"And {n}.", agent_role=f"t{n}") for n in range(10)]
        replies = ended(turns)
    assert sorted(processes.posted(user)) == sorted(replies)


def test_a_queued_job_that_is_cancelled_is_not_run_by_the_worker_that_comes_later(
    processes: Processes, canceller: Canceller
) -> None:
    user = secrets.token_hex(8)
    by_job, by_turn, by_key, other = (
        send(processes, user, f"Please note {n}.", **more)
        for n, more in enumerate(({}, {}, {"idempotency_key": "k"}, {}))
    )
    canceller.cancel_job(by_job.id, wait=0)
    canceller.cancel_turn(by_turn.id, wait=0)
    canceller.cancel_turn(turn_id_for(user, "k", by_key.id), wait=0)
    with processes.worker("later"):
        reply = other.get(timeout=60)["response"]
        for cancelled in (by_job, by_turn, by_key):
            until(lambda job=cancelled: job.state == "REVOKED", "it is revoked")  # type: ignore[misc]
    assert processes.posted(user) == [reply]


def test_clasper_cancel_says_what_holds(processes: Processes) -> None:
    user = secrets.token_hex(8)
    turn = send(processes, user)
    with processes.running("cancel", "clasper_worker", "cancel", turn.id, "--wait", "0") as command:
        command.wait(60)
    assert "will not run" in processes.logs["cancel"].read_text()
    with processes.worker("after-cancel"):
        until(lambda: turn.state == "REVOKED", "it is revoked")
        assert send(processes, user, "Next").get(timeout=60)["status"] == "ok"
    assert len(processes.posted(user)) == 1


def test_the_shims_delete_keeps_its_word(processes: Processes) -> None:
    user, port = secrets.token_hex(8), free_port()
    url = f"http://127.0.0.1:{port}"
    with processes.running("shim", "clasper_worker", "serve", "--port", str(port)):
        until(lambda: answers(f"{url}/health"), "shim", processes.logs["shim"])
        body = {"user_id": user, "message": "Hello", "task_title": "T"}
        job = processes.http.post(f"{url}/api/agents/send", json=body).json()["job_id"]
        answer = processes.http.delete(f"{url}/api/jobs/{job}").json()
        assert answer["status"] == "cancelled"
        with processes.worker("after-delete"):
            last = send(processes, user, "Next").get(timeout=60)["response"]
        assert processes.http.get(f"{url}/api/jobs/{job}").json()["status"] == "cancelled"
    assert processes.posted(user) == [last]


def test_a_running_turn_that_is_cancelled_is_stopped(
    processes: Processes, slow_model: dict[str, str], canceller: Canceller
) -> None:
    user = secrets.token_hex(8)
    with processes.worker("stopped", **slow_model):
        turn = send(processes, user)
        until(lambda: turn.state == "STARTED", "it runs")
        (end,) = canceller.cancel_turn(turn.id, wait=60)
    assert (end.found, end.state) == ("running", "REVOKED")
    assert processes.posted(user) == []


def test_celerys_own_revocation_outlives_the_workers_that_heard_of_it(
    processes: Processes,
) -> None:
    user = secrets.token_hex(8)
    with processes.worker("hears", "-Q", "elsewhere"):
        turn = send(processes, user)
        processes.app.control.revoke(turn.id)
        with Connection(processes.environment["CLASPER_REDIS_URL"]) as connection:
            client = connection.default_channel.client
            note = f"clasper:cancelled:{turn.id}"
            until(lambda: client.exists(note), "it is noted", processes.logs["hears"])
    with processes.worker("new"):
        until(lambda: turn.state == "REVOKED", "it is revoked")
    assert processes.posted(user) == []


def test_a_task_that_nobody_has_is_refused_with_the_setting_and_no_word_of_dead_letters(
    processes: Processes,
) -> None:
    with processes.worker("refuses"):
        unknown = processes.app.send_task("shop.note", args=["x"], queue="clasper")
        with pytest.raises(Exception, match="CLASPER_CALLBACK_QUEUE") as err:
            unknown.get(timeout=60)
    assert "dead-letters" not in str(err.value)
    assert unknown.state == "FAILURE"


def test_a_message_of_protocol_1_and_one_that_is_pickled(processes: Processes) -> None:
    user = secrets.token_hex(8)
    kwargs = {"user_id": user, "task_title": "T", "message": "Hello"}
    old, pickled = (processes.app.AsyncResult(secrets.token_hex(16)) for _ in range(2))
    with Connection(processes.environment["CELERY_BROKER_URL"]) as connection:
        queue = Queue("clasper", Exchange("clasper"), routing_key="clasper")
        producer = connection.Producer()
        for job, how in ((old, "json"), (pickled, "pickle")):
            body = {"task": "clasper.send", "id": job.id, "args": [], "kwargs": kwargs}
            producer.publish(
                body,
                exchange=queue.exchange,
                routing_key="clasper",
                declare=[queue],
                serializer=how,
                correlation_id=job.id,
            )
    with processes.worker("older"):
        reply = old.get(timeout=60)["response"]
        with pytest.raises(Exception, match="task_serializer='json'"):
            pickled.get(timeout=60)
    assert processes.posted(user) == [reply]


def test_notifications_are_dispatched_by_beat_and_flower_shows_the_worker(
    processes: Processes,
) -> None:
    user, port = secrets.token_hex(8), free_port()
    body = {"user_id": user, "content": "Please note this.", "task_title": "N"}
    url = f"{processes.backend_url}/api/mission-control/notifications"
    internal = {"X-Internal-Token": "internal"}
    processes.http.post(url, json=body, headers=internal).raise_for_status()
    flower = ("celery", "-A", "clasper_worker", "flower", f"--port={port}", "--address=127.0.0.1")
    api = f"http://127.0.0.1:{port}"
    environment = {**processes.environment, "FLOWER_UNAUTHENTICATED_API": "true"}
    with (
        processes.running("beat", "celery", "-A", "beat_schedule", "beat", **SOON),
        processes.worker("clocked", **SOON) as node,
        (processes.folder / "flower.log").open("wb") as log,
    ):
        command = [str(part) for part in (sys.executable, "-m", *flower)]
        process = subprocess.Popen(
            command, env=environment, cwd=processes.folder, stdout=log, stderr=log
        )
        try:
            until(lambda: len(processes.posted(user)) == 1, "it is answered")
            until(lambda: answers(f"{api}/healthcheck"), "Flower answers")

            def shows() -> bool:
                answer = processes.http.get(f"{api}/api/workers", params={"refresh": "1"})
                return answer.status_code == 200 and node in answer.json()

            until(shows, "Flower shows the worker", processes.folder / "flower.log")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)
    undelivered = f"{processes.backend_url}/api/mission-control/dispatch/undelivered"
    assert processes.http.get(undelivered, headers=internal).json()["deliveries"] == []
