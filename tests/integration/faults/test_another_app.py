"""Another Celery app on the same Redis, under stock Celery: our workers leave it alone."""

from __future__ import annotations

import pytest
from celery.result import AsyncResult

from tests.integration.faults.conftest import Site
from tests.waiting import until

pytestmark = pytest.mark.integration

PASSES = 20  # of the keeper, five in a lease: four leases' time


def start_theirs(site: Site) -> AsyncResult:
    """A task of theirs that runs until `site.client` pushes to the list ``release``."""
    theirs = site.app.send_task("theirs.wait", args=["release"], queue="theirs", task_id="theirs")
    until(lambda: site.noted("start", "theirs"), "their task runs")
    return theirs


def let_keepers_look(site: Site) -> None:
    """Return once keepers of ours have looked for lapsed leases so many times."""
    seen: set[bytes] = set()

    def looked() -> bool:
        seen.add(site.client.get("clasper:leases:pulse"))
        return len(seen) > PASSES

    until(looked, "the keepers look for lapsed leases")


def assert_it_is_as_it_was(site: Site) -> None:
    assert len(site.noted("start", "theirs")) == 1
    assert site.client.llen("theirs") == 0
    assert site.client.hlen("unacked") == site.client.zcard("unacked_index") == 1


def test_a_long_task_of_theirs_is_not_delivered_again_while_leases_of_ours_lapse(
    site: Site,
) -> None:
    with site.worker("theirs", "-P", "solo", app="stock_app", queues="theirs") as stock:
        theirs = start_theirs(site)
        with site.worker("first") as first:
            turns = [site.send(job, job, message="go") for job in "abcd"]
            until(lambda: all(site.noted("start", job) for job in "abcd"), "the first runs them")
            first.kill()
            first.wait()
        with site.worker("second") as second:
            until(
                lambda: all(second.pid in site.noted("start", job) for job in "abcd"),
                "what the first had is taken over",
            )
            let_keepers_look(site)
            assert_it_is_as_it_was(site)
            site.let_go("go")
            assert {turn.get(timeout=60) for turn in turns} == {second.pid}
            site.client.rpush("release", "now")
            assert theirs.get(timeout=60) == stock.pid
            until(lambda: site.client.hlen("unacked") == 0, "they have acknowledged it")
            assert len(site.noted("start", "theirs")) == 1


def test_what_a_killed_worker_of_theirs_had_is_left_to_them(site: Site) -> None:
    with site.worker("ours"):
        with site.worker("theirs", "-P", "solo", app="stock_app", queues="theirs") as stock:
            theirs = start_theirs(site)
            stock.kill()
            stock.wait()
        let_keepers_look(site)
        assert_it_is_as_it_was(site)
        site.environment["STOCK_VISIBILITY"] = "1"
        site.client.rpush("release", "now", "now")
        with site.worker("again", "-P", "solo", app="stock_app", queues="theirs") as again:
            assert theirs.get(timeout=60) == again.pid
