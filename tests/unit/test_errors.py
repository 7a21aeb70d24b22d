"""Our errors: one tree, that survives the way through the result backend."""

import inspect
import json
import re

import pytest
from celery import Celery
from celery.backends.base import Backend

from clasper_worker import errors
from clasper_worker.errors import ClasperError

CLASSES = [
    item for _, item in inspect.getmembers(errors, inspect.isclass)
    if issubclass(item, ClasperError)
]  # fmt: skip


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"\b\w+Error\b", errors.__doc__ or ""))
    assert drawn >= {cls.__name__ for cls in CLASSES}


def test_each_code_is_its_own() -> None:
    codes = [cls.code for cls in CLASSES]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize("cls", CLASSES)
def test_an_error_comes_back_whole_from_the_result_backend(cls: type[ClasperError]) -> None:
    app = Celery("test", set_as_current=False)
    backend = Backend(app, serializer="json")
    stored = json.loads(json.dumps(backend.prepare_exception(cls("It broke", {"field": "x"}))))
    restored = backend.exception_to_python(stored)
    assert type(restored) is cls
    assert (str(restored), restored.details) == ("It broke", {"field": "x"})
