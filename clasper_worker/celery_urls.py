"""A Celery app whose URLs are read as our settings are, and that checks certificates.

Celery reads ``CELERY_BROKER_URL`` and ``CELERY_RESULT_BACKEND`` from the environment before it
looks into its configuration, so that it is not enough to put a checked URL there.
"""

from __future__ import annotations

from typing import Any

from celery import Celery

from clasper_worker.settings import bare_value, with_certificate_check


class CheckedCelery(Celery):
    """A Celery app that says of each ``rediss://`` URL whether the certificate is checked.

    What stands around a URL by accident, such as a line break, is left out.
    """

    @property
    def backend_cls(self) -> Any:
        """Where results go, as Celery asks for it."""
        url = self.conf.result_backend
        return _read(url)

    def _connection(self, url: Any, *args: Any, **kwargs: Any) -> Any:
        return super()._connection(_read(url), *args, **kwargs)


def _read(url: Any) -> Any:
    return with_certificate_check(bare_value(url)) if isinstance(url, str) else url
