import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.prompt.roles import validate_role

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"


@given(st.text(alphabet=LETTERS, min_size=1, max_size=64))
def test_a_role_of_the_contracts_form_is_returned_as_it_is(role: str) -> None:
    assert validate_role(role) == role


@pytest.mark.parametrize(
    "role",
    ["", "../x", "a/b", "a\\b", ".", "..", "a.md", "a b", "writer\n", "x" * 65, "rôle", "a\0b"],
)
def test_a_role_that_could_name_another_file_is_refused_with_the_rule(role: str) -> None:
    with pytest.raises(ValueError, match="1 to 64 letters, digits, '_' or '-'"):
        validate_role(role)


@given(st.text())
def test_no_accepted_role_holds_a_path_character(role: str) -> None:
    try:
        accepted = validate_role(role)
    except ValueError:
        return
    assert set(accepted) <= set(LETTERS)
    assert 1 <= len(accepted) <= 64
