"""A webhook's URL: what it is taken to mean, and what is refused."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clasper_worker.turn.webhook_target import Target, parse_target


@pytest.mark.parametrize(
    ("url", "target", "host_header"),
    [
        (
            "https://example.com/hook?a=b#part",
            Target("https", "example.com", 443, "/hook?a=b"),
            "example.com",
        ),
        ("http://Example.COM", Target("http", "example.com", 80, "/"), "example.com"),
        ("http://example.com:80/", Target("http", "example.com", 80, "/"), "example.com"),
        ("https://a.example:8443/", Target("https", "a.example", 8443, "/"), "a.example:8443"),
        ("http://backend:8000/x", Target("http", "backend", 8000, "/x"), "backend:8000"),
        ("http://8.8.8.8/", Target("http", "8.8.8.8", 80, "/"), "8.8.8.8"),
        ("http://[2606:4700:0::1]/", Target("http", "2606:4700::1", 80, "/"), "[2606:4700::1]"),
        (
            "https://[2606:4700::1]:8443/",
            Target("https", "2606:4700::1", 8443, "/"),
            "[2606:4700::1]:8443",
        ),
        (
            "https://bücher.example/ü",
            Target("https", "xn--bcher-kva.example", 443, "/%C3%BC"),
            "xn--bcher-kva.example",
        ),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart(url: str, target: Target, host_header: str) -> None:
    assert parse_target(url) == target
    assert parse_target(url).host_header == host_header


@pytest.mark.parametrize(
    "url",
    [
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "example.com/hook",
        "http://",
        "http:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://example.com@127.0.0.1/",
        "https://example.com\\@127.0.0.1/",
        "https://example.com/\r\nHost: inner",
        "https://exa mple.com/",
        "https://example.com:0/",
        "https://example.com:65536/",
        "https://example.com:port/",
        "https://example.com./",
        "https://-example.com/",
        "https://exam$ple.com/",
        "https://example..com/",
        "http://[fe80::1%25eth0]/",
        "http://[fe80::1%eth0]/",
        "http://[::1/",
        "http://%31%32%37.0.0.1/",
    ],
)
def test_a_url_that_could_mean_something_else_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"must|is not|has a"):
        parse_target(url)


@pytest.mark.parametrize(
    "host",
    [
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0X7F.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.01",
        "127.0.0.1.",
        "1.2.3.4.5",
        "256.0.0.1",
        "example.1",
        "example.0x",
        "\u0661\u0662\u0667.\u0660.\u0660.\u0661",  # Arabic digits
    ],
)
def test_an_ipv4_address_in_another_spelling_is_refused(host: str) -> None:
    with pytest.raises(ValueError, match=r"IPv4|not a valid"):
        parse_target(f"http://{host}/")


@pytest.mark.parametrize("host", ["127。0。0。1", "127.0.0.1"])
def test_a_spelling_that_idna_makes_usual_is_the_address_that_is_checked(host: str) -> None:
    assert parse_target(f"http://{host}/").host == "127.0.0.1"


@given(st.text(max_size=60).map(lambda rest: f"http://{rest}"))
def test_any_text_is_either_taken_apart_or_refused(url: str) -> None:
    try:
        target = parse_target(url)
    except ValueError:
        return
    assert target.host.isascii()
    assert "@" not in target.host
    assert 1 <= target.port <= 65_535
    assert target.path.startswith("/")
    assert target.path.isprintable()


@given(st.ip_addresses())
def test_every_address_in_its_usual_form_is_taken(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    written = f"[{address}]" if address.version == 6 else str(address)
    assert ipaddress.ip_address(parse_target(f"http://{written}/").host) == address


def test_the_path_does_not_show() -> None:
    assert "hunter2" not in repr(parse_target("https://example.com/hunter2?key=hunter2"))
