"""A Celery app whose ``rediss://`` connections check the server's certificate.

Celery reads ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND`` from the environment before it
looks into its configuration, so that it is not enough to put a checked URL there.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from clasper_worker.settings import with_certificate_check


class CheckedCelery(Celery):
    """A Celery app that says of each ``rediss://`` URL whether the certificate is checked."""

    @property
    def backend_cls(self) -> Any:
        """Where results go, as Celery asks for it."""
        url = self.conf.result_backend
        return with_certificate_check(url) if isinstance(url, str) else url

    def _connection(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        url = with_certificate_check(url) if isinstance(url, str) else url
        return super()._connection(url, *args, **kwargs)
