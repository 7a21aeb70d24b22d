"""How much an error may say."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.errors import ClasperError, InvalidRequestError
from clasper_worker.text.bounds import MAX_FIELDS, bounded, told_problems
from clasper_worker.webhooks.payload import Delivery


def test_an_error_is_cut_whatever_it_was_made_of() -> None:
    error = ClasperError("x" * 100_000, {"a": "y" * 100_000, "b": list(range(100_000))})
    assert len(str(error)) <= 8_000
    assert str(error).endswith("[cut]")
    assert len(json.dumps(error.details)) < 5_000
    assert error.args == (error.message, error.details)


def test_many_problems_are_counted_beyond_the_first() -> None:
    text, details = told_problems(
        {"field": f"f{i}", "problem": "is wrong", "fix": "fix it"} for i in range(1_000)
    )
    assert text.startswith("f0: is wrong (fix it); f1")
    assert text.endswith("and 980 more")
    assert (len(details["fields"]), details["more"]) == (MAX_FIELDS, 980)
    assert "more" not in told_problems([{"field": "f", "problem": "is wrong"}])[1]


def test_a_webhooks_delivery_of_many_unknown_fields_makes_a_short_error() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Delivery.parse({f"x{i}": 1 for i in range(50_000)})
    assert len(str(caught.value)) < 5_000
    assert caught.value.details["more"] > 49_000


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=50) | st.lists(st.integers())))
def test_details_of_a_usual_size_stay_as_they_are(details: dict[str, Any]) -> None:
    short = {
        name: value[:100] if isinstance(value, list) else value for name, value in details.items()
    }
    assert bounded(details) == short
