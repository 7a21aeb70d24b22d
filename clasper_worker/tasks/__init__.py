"""Every Celery task: read the arguments, call one function, let its typed error through.

Importing this registers them all.
"""

from clasper_worker.tasks import compact, llm_task, notifications, periodic, send, webhook

__all__ = ["compact", "llm_task", "notifications", "periodic", "send", "webhook"]
