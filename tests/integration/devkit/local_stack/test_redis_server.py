"""A Redis server of our own, for real."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from clasper_worker.config.settings import load_settings
from clasper_worker.devkit.local_stack.ports import PortReservations, is_listening
from clasper_worker.devkit.local_stack.probes import WorkerAnswers, check_broker
from clasper_worker.devkit.local_stack.redis_binary import RedisBinary, find_redis
from clasper_worker.devkit.local_stack.redis_server import RunningRedis, answers_ping, start_redis
from clasper_worker.errors import StackError
from tests.waiting import until

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(find_redis() is None, reason="no Redis server here: install redis-server"),
]


def client_of(server: RunningRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url, decode_responses=True)


def exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_answers_on_the_loopback_with_settings_for_queued_work() -> None:
    with start_redis() as server, client_of(server) as client:
        settings = client.config_get("*")

    assert settings["bind"] == "127.0.0.1"
    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "everysec"
    assert settings["maxmemory-policy"] == "noeviction"
    assert settings["save"] == ""


def test_what_was_written_survives_a_crash_and_a_stop(tmp_path: Path) -> None:
    with start_redis(tmp_path / "with space") as server, client_of(server) as client:
        client.set("crash", "1")
        server.kill()
        server.restart()
        assert client.get("crash") == "1"
        client.set("stop", "2")

    with start_redis(tmp_path / "with space") as server, client_of(server) as client:
        assert client.mget("crash", "stop") == ["1", "2"]


def test_after_the_block_nothing_is_left_of_it() -> None:
    with start_redis() as server:
        pid, port, folder = server.pid, server.port, server.data_dir

    assert not exists(pid)
    assert not is_listening(port)
    assert not folder.exists()


def test_stopping_twice_does_no_harm() -> None:
    server = start_redis()
    server.stop()
    server.stop()


def test_it_ends_with_a_process_that_is_killed() -> None:
    script = (
        "import os, sys\n"
        "from clasper_worker.devkit.local_stack.redis_server import start_redis\n"
        "print(start_redis().pid, flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout is not None
        pid = int(owner.stdout.readline())
        assert exists(pid)
        owner.send_signal(signal.SIGKILL)

    until(lambda: not exists(pid))


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    with start_redis() as server, pytest.raises(StackError, match=str(server.port)):
        start_redis(port=server.port)


def test_a_server_that_cannot_start_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    broken = tmp_path / "redis-server"
    broken.write_text("#!/bin/sh\necho no memory today\nexit 1\n", "utf-8")
    broken.chmod(0o755)

    with pytest.raises(StackError, match="no memory today"):
        start_redis(tmp_path / "data", binary=RedisBinary(str(broken), "7.0.0", "system"))


def test_another_server_on_the_port_is_not_taken_for_ours() -> None:
    with start_redis() as server:
        assert answers_ping(server.port, server.pid)
        assert not answers_ping(server.port, os.getpid())


def test_a_server_that_lost_its_port_to_another_is_not_ready(tmp_path: Path) -> None:
    with start_redis() as first:
        late = RunningRedis(first.binary, first.port, tmp_path)
        try:
            with pytest.raises(StackError, match="did not start"):
                late.wait_until_ready()
        finally:
            late.stop()


def test_a_reachable_broker_passes_the_check() -> None:
    with start_redis() as server:
        check_broker(server.url, load_settings())


async def test_a_worker_that_is_not_there_is_not_ready() -> None:
    with start_redis() as server:
        assert not await WorkerAnswers(server.url, "nobody@nowhere")(1)


def test_a_broker_that_wants_another_password_is_refused_without_showing_it() -> None:
    with start_redis() as server, client_of(server) as client:
        client.config_set("requirepass", "right-password")

        with pytest.raises(StackError, match="refuses the password") as caught:
            check_broker(f"redis://:wrong-password@127.0.0.1:{server.port}/0", load_settings())
    assert "wrong-password" not in str(caught.value)


def test_the_fake_serves_too_and_keeps_nothing() -> None:
    fake = RedisBinary(sys.executable, "", "fake")

    with start_redis(binary=fake) as server, client_of(server) as client:
        client.set("key", "1")
        assert client.eval("return redis.call('get', KEYS[1])", 1, "key") == "1"
        server.restart()
        assert client.get("key") is None


def test_servers_started_together_do_not_meet() -> None:
    with PortReservations() as ports, start_redis() as one, start_redis() as other:
        assert len({ports.choose(0), one.port, other.port}) == 3
