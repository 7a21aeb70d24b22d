"""The signature: what was signed verifies, and nothing else does."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.webhooks.signature import sign, verify_signature

NOW = 1_760_000_000
# No lone surrogates: a secret in a request is checked to be UTF-8.
secrets = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def test_the_header_is_the_documented_one() -> None:
    digest = hmac.new(b"s3cret", b"1760000000." + b'{"a":1}', hashlib.sha256).hexdigest()
    assert sign("s3cret", b'{"a":1}', NOW) == f"t=1760000000,v1={digest}"


@given(secrets, st.binary(max_size=200))
def test_what_was_signed_verifies(secret: str, body: bytes) -> None:
    assert verify_signature(secret, body, sign(secret, body, NOW), now=NOW)


@given(secrets, secrets, st.binary(max_size=50), st.binary(max_size=50))
def test_another_secret_or_body_does_not_verify(
    secret: str, other: str, body: bytes, changed: bytes
) -> None:
    header = sign(secret, body, NOW)
    assert verify_signature(other, body, header, now=NOW) == (other == secret)
    assert verify_signature(secret, changed, header, now=NOW) == (changed == body)


def test_the_time_is_part_of_what_is_signed() -> None:
    later = sign("s", b"{}", NOW).replace(str(NOW), str(NOW + 600))
    assert not verify_signature("s", b"{}", later, now=NOW + 600)


@pytest.mark.parametrize(("offset", "good"), [(0, True), (300, True), (-300, True), (301, False)])
def test_the_time_may_lie_within_the_tolerance(offset: int, good: bool) -> None:
    assert verify_signature("s", b"{}", sign("s", b"{}", NOW), now=NOW + offset) is good


def test_the_clock_decides_where_no_time_is_given() -> None:
    assert not verify_signature("s", b"{}", sign("s", b"{}", NOW - 10**8))


def test_one_good_signature_of_several_is_enough_and_other_parts_are_ignored() -> None:
    good = sign("new", b"{}", NOW)
    header = f"v0=x, {good}, v1=00,v2=y"
    assert verify_signature("new", b"{}", header, now=NOW)


@given(st.none() | st.text(max_size=80))
def test_what_is_no_signature_never_verifies(header: str | None) -> None:
    assert verify_signature("s", b"{}", header, now=NOW) is False


@pytest.mark.parametrize(
    "header",
    ["", "t=1", "v1=00", "t=,v1=00", "t=-5,v1=0", "t=1,t=1,v1=0", "t=x,v1=ü", "t=٣,v1=0", "=,="],
)
def test_a_malformed_header_does_not_verify(header: str) -> None:
    assert verify_signature("s", b"{}", header, now=1) is False


def test_an_empty_secret_verifies_nothing() -> None:
    assert not verify_signature("", b"{}", sign("", b"{}", NOW), now=NOW)
