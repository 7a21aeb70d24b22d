"""The Redis user that the documentation recommends has all the rights that are needed."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest
import redis
from celery import Celery

from clasper_worker.devkit.local_stack.bare_environment import bare_environment
from clasper_worker.devkit.local_stack.redis_binary import find_redis
from clasper_worker.devkit.local_stack.redis_server import start_redis
from tests.chaos.workers import Nursery
from tests.integration import forked
from tests.integration.deployment.test_json_logs import running
from tests.waiting import until

REPO = Path(__file__).parents[3]
pytestmark = pytest.mark.integration


def test_worker_beat_and_commands_run_as_the_documented_user(
    tmp_path: Path, nursery: Nursery
) -> None:
    if find_redis() is None:
        pytest.skip("no Redis server here: install redis-server")
    (line,) = re.findall(
        r"^ACL SETUSER (.+)$", (REPO / "docs/redis.md").read_text("utf-8"), re.MULTILINE
    )
    with start_redis() as server, redis.Redis.from_url(server.url) as admin:
        admin.execute_command("ACL", "SETUSER", *line.split())
        url = server.url.replace("redis://", "redis://clasper:PASSWORD@")
        environment = {
            **bare_environment(os.environ),
            "CELERY_BROKER_URL": url,
            "BACKEND_URL": "http://127.0.0.1:1",
            "AGENT_JWT_SECRET": "a-secret-of-the-tests-with-more-than-32-bytes",
            "OPENAI_API_KEY": "none",
            "CLASPER_WORKSPACE": str(REPO / "workspace"),
            "CLASPER_LOG_FORMAT": "json",
        }

        def run(*command: str) -> subprocess.CompletedProcess[str]:
            return forked.run(nursery, ("clasper_worker", *command), environment, tmp_path)

        app = Celery("caller", broker=url, backend=url, set_as_current=False)
        worker = running(tmp_path, "worker", environment, "clasper_worker", "worker",
                         "--processes", "1")  # fmt: skip
        with worker as log, running(tmp_path, "beat", environment, "clasper_worker", "beat"):
            until(lambda: bool(app.control.ping(timeout=0.5)), "the worker", log)
            until(lambda: bool(admin.keys("clasper:redbeat:*lock*")), "Beat", log)
            turn = app.send_task("clasper.send", kwargs={"user_id": "u1"}, queue="clasper")
            with pytest.raises(Exception, match="message"):
                turn.get(timeout=60)
            # A failure is stored before its message becomes a dead letter.
            until(lambda: admin.zcard("clasper:dead") == 1, "the dead letter", log)
            status = json.loads(run("status", "--json").stdout)
            assert (len(status["workers"]), status["dead"]) == (1, 1)
            (letter,) = json.loads(run("dead-letters", "list", "--json").stdout)
            assert (letter["code"], letter["by"]) == ("invalid_request", "caller")
            assert run("dead-letters", "drop", "--all").returncode == 0
            assert "is not known" in run("cancel", "no-such-turn").stdout
        app.close()
        refused = {entry["object"] for entry in admin.acl_log() if entry["username"] == "clasper"}
        assert refused <= {"client", "client|setinfo", b"client"}
        assert "NoPermission" not in log.read_text()
