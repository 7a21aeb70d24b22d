"""A backend that enqueues a turn with plain Celery: nothing of Clasper Worker is imported here.

Usage: CELERY_BROKER_URL=redis://… python enqueue_from_celery.py REQUEST_JSON
"""

import json
import os
import sys

from celery import Celery

broker = os.environ["CELERY_BROKER_URL"]
app = Celery("my_backend", broker=broker, backend=os.environ.get("CELERY_RESULT_BACKEND", broker))

if __name__ == "__main__":
    request = json.loads(sys.argv[1])
    turn = app.send_task("clasper.send", kwargs=request, queue="clasper")
    print(json.dumps(turn.get(timeout=120)))
