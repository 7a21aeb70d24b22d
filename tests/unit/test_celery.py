"""The Celery app's configuration."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from celery import current_app

from clasper_worker.celery import ClasperCelery, app, celery_configuration
from clasper_worker.config.names import QUEUES
from clasper_worker.config.settings import Settings

ROOT = Path(__file__).parents[2]


def test_importing_the_app_leaves_the_current_app_alone() -> None:
    assert current_app._get_current_object() is not app


def test_importing_the_app_reads_no_setting_and_connects_to_nothing() -> None:
    program = "import clasper_worker.celery as c; assert not c.app.configured; print('ok')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"CLASPER_PORT": "not a port", "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "ok\n", done.stderr


@pytest.mark.parametrize("program", [("clasper_worker", "worker"), ("beat_schedule", "beat")])
def test_a_bad_setting_is_one_line_under_celerys_own_command(program: tuple[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "celery", "-A", *program],
        env={"BACKEND_URL": "backend.example", "PATH": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Error (configuration): Check these settings")
    assert "BACKEND_URL" in done.stderr
    assert done.stderr.count("\n") == 1


def test_each_queue_is_bound_to_its_own_key_alone(settings_of: Callable[..., Settings]) -> None:
    queues = celery_configuration(settings_of())["task_queues"]
    assert [queue.name for queue in queues] == list(QUEUES)
    assert [queue.routing_key for queue in queues] == list(QUEUES)
    assert len({queue.exchange.name for queue in queues}) == len(QUEUES)


def test_work_is_acknowledged_late_and_redelivered_only_after_the_longest_turn(
    settings_of: Callable[..., Settings],
) -> None:
    conf = celery_configuration(settings_of(clasper_turn_hard_limit_sec=1000))
    assert conf["task_acks_late"] is True
    assert conf["broker_transport_options"]["visibility_timeout"] > 1000
    assert conf["task_annotations"]["clasper.send"]["time_limit"] == 1000


def test_only_json_is_accepted(settings_of: Callable[..., Settings]) -> None:
    assert celery_configuration(settings_of())["accept_content"] == ["json"]


def test_redis_options_stay_away_from_another_broker(settings_of: Callable[..., Settings]) -> None:
    conf = celery_configuration(settings_of(celery_broker_url="amqp://localhost"))
    assert conf["broker_transport_options"] == {}


def test_no_wait_for_the_broker_is_endless(settings_of: Callable[..., Settings]) -> None:
    options = celery_configuration(settings_of())["broker_transport_options"]
    assert 5 < options["socket_timeout"] < 60
    assert options["socket_connect_timeout"] < 60
    assert 0 < options["health_check_interval"] < 30


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ("redis://:pw@r:1/2", "redis://:pw@r:1/2"),
        ("rediss://r:1/0", "rediss://r:1/0"),
        ("sentinel://a:1/0;sentinel://b:1/0", "sentinel://a:1/0"),
        ("amqp://u:pw@r:1//", "amqp://u:pw@r:1//"),
    ],
)
def test_a_broker_is_named_by_its_scheme_though_its_transport_is_ours(
    settings_of: Callable[..., Settings], given: str, named: str
) -> None:
    """Flower's Broker tab knows it by that."""
    app = ClasperCelery("test", set_as_current=False)
    app.conf.update(celery_configuration(settings_of(celery_broker_url=given)))
    with app.connection() as connection:
        assert connection.as_uri(include_password=True).partition("?")[0] == named
        assert "pw" not in connection.as_uri()
    app.close()


def test_ticks_send_no_events_which_would_bury_the_turns_in_flower() -> None:
    app.loader.import_default_modules()
    silent = {name for name, task in app.tasks.items() if not task.send_events}
    ticks = {"clasper.dispatch", "clasper.heartbeats", "clasper.standups"}
    assert ticks <= silent
    assert app.tasks["clasper.send"].send_events


def test_workers_that_were_given_no_name_have_names_of_their_own() -> None:
    program = (
        "from clasper_worker.celery import app; import socket\n"
        "names = {app.Worker(hostname=None).hostname for _ in range(3)}\n"
        "assert len(names) == 3, names\n"
        "assert all(n.endswith('@' + socket.gethostname()) for n in names), names\n"
        "print(app.Worker(hostname='given@host').hostname)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "given@host\n", done.stderr
