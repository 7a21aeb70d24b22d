"""The fault matrix: turns under faults, every call of theirs recorded and checked.

It knows the public interface alone: environment variables, ``celery -A clasper_worker worker``
processes, ``send_task("clasper.send")`` from a stock Celery app, Celery's results, the backend's
contract and OpenAI's chat API. Run it with ``make chaos`` or ``python -m tests.chaos --help``.
"""
