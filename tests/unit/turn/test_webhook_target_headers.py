"""Headers that a webhook may carry."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.turn.webhook_target import check_headers


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "Bearer a.b-c"}, {"x-tenant": ""}, {"X-A": "one two\tthree"}],
)
def test_plain_headers_pass(headers: dict[str, str]) -> None:
    check_headers(headers)


@pytest.mark.parametrize(
    "name",
    ["Host", "content-length", "Transfer-Encoding", "X-Clasper-Signature", "Proxy-X", "TE"],
)
def test_headers_that_are_not_the_callers_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=name):
        check_headers({name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\n", "ü", "x" * 129])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        check_headers({name: "x"})


@given(st.sampled_from("\r\n\x00\x7fü\u2028"), st.text("abc"), st.text("abc"))
def test_no_value_can_end_its_line_and_none_is_repeated(bad: str, left: str, right: str) -> None:
    with pytest.raises(ValueError, match="X-A") as caught:
        check_headers({"X-A": f"{left}hunter2{bad}{right}"})
    assert "hunter2" not in str(caught.value)


def test_too_many_or_too_long_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 32"):
        check_headers({f"x-{number}": "" for number in range(33)})
    with pytest.raises(ValueError, match="8,192"):
        check_headers({"x-a": "x" * 8192})
