"""Celery apps of tests that send tasks and wait for them, as any backend does."""

from __future__ import annotations

from celery import Celery


def close_client(app: Celery) -> None:
    """Close a client of which results may still be around.

    A failed test's are: its traceback holds them. They are collected in a later test, and would
    fail that one in its stead: each unsubscribes, from a Redis that is no longer there.
    """
    consumer = app.backend.result_consumer
    consumer.subscribed_to.clear()
    consumer.stop()
    app.backend.client.close()
    app.close()
