"""Every Celery task: read the arguments, call one function, let its typed error through.

Importing this registers them all, and the remote-control commands (`control`).
"""

from clasper_worker.tasks import compact, control, llm_task, notifications, periodic, send, webhook

__all__ = ["compact", "control", "llm_task", "notifications", "periodic", "send", "webhook"]
