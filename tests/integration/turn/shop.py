"""A customer's own Celery app on the same broker: it knows nothing of ours."""

import json
import os
from typing import Any

import redis
from celery import Celery

app = Celery("shop", broker=os.environ["SHOP_BROKER"], backend=os.environ["SHOP_REDIS"])
app.conf.broker_connection_retry_on_startup = True


@app.task(name="shop.note")
def note(result: Any, where: str) -> str:
    """Note what a task gave, or the id of the one that failed."""
    with redis.Redis.from_url(os.environ["SHOP_REDIS"]) as client:
        client.rpush(f"shop:{where}", json.dumps(result))
    return where
