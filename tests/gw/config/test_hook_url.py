"""gw.config.hook_url: one reading of each URL, and refusals of what parsers read differently."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gw.config.hook_url import HookUrl, is_within, parse_hook_url, parse_networks, shown


@pytest.mark.parametrize(
    ("text", "parts", "authority"),
    [
        ("https://api.example.com/a/b?x=1&y", ("https", "api.example.com", 443, "/a/b?x=1&y"), "api.example.com"),
        ("https://API.Example.com", ("https", "api.example.com", 443, "/"), "api.example.com"),
        ("https://example.com.:8443/x", ("https", "example.com.", 8443, "/x"), "example.com.:8443"),
        ("https://example.com?x", ("https", "example.com", 443, "/?x"), "example.com"),
        ("http://10.0.3.4:80/x", ("http", "10.0.3.4", 80, "/x"), "10.0.3.4"),
        ("http://my_host:443/", ("http", "my_host", 443, "/"), "my_host:443"),
        ("https://[::FFFF:7f00:1]:9/", ("https", "::ffff:7f00:1", 9, "/"), "[::ffff:7f00:1]:9"),
        ("https://2130706433/", ("https", "2130706433", 443, "/"), "2130706433"),
    ],
)
def test_parts(text: str, parts: tuple[str, str, int, str], authority: str) -> None:
    url = parse_hook_url(text)
    assert url == parts
    assert url.authority == authority


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api.example.com/x", "https://host/path"),
        ("ftp://example.com/", "https://host/path"),
        ("wss://example.com/", "https://host/path"),
        ("https:///x", "https://host/path"),
        ("https://", "https://host/path"),
        ("https://.example.com/", "https://host/path"),
        ("https://a..b/", "https://host/path"),
        ("https://example.com:x/", "https://host/path"),
        ("https://example.com:99999/", "https://host/path"),
        ("https://exa%6dple.com/", "https://host/path"),
        ("https://example.com:0/", "a port from 1 to 65535"),
        ("https://me:pass@example.com/", "no user"),
        ("https://me@example.com/", "no user"),
        ("https://@example.com/", "no user"),
        ("https://example.com/#x", "no fragment"),
        ("https://example.com/#", "no fragment"),
        ("https://example.com/a b", "visible ASCII"),
        ("https://example.com/\r\nx", "visible ASCII"),
        (" https://example.com/", "visible ASCII"),
        ("https://good.com\\@evil.com/", "visible ASCII"),
        ("https://b\u00fccher.example/", "visible ASCII"),
        ("", "visible ASCII"),
        ("https://[::1/", "https://host/path"),
        ("https://[::g]/", "https://host/path|an IPv6 address"),
        ("https://[fe80::1%25eth0]/", "an IPv6 address"),
        ("https://[127.0.0.1]/", "https://host/path|an IPv6 address"),
    ],
)
def test_refused(text: str, expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        parse_hook_url(text)


@given(st.text(alphabet="htps:/.@#?[]%\\0179xa-_ \n\u00e9", max_size=30).map(lambda rest: "https://" + rest))
def test_any_text_gives_plain_parts_or_value_error(text: str) -> None:
    try:
        url = parse_hook_url(text)
    except ValueError:
        return
    assert isinstance(url, HookUrl)
    assert url.host
    assert not set(url.host) & set("@/\\ #?%[]\n")
    assert url.target.startswith("/")
    assert 0 < url.port < 65536


def test_networks() -> None:
    networks = parse_networks(["10.0.3.0/24", "::1/128", "192.168.1.1"])
    assert is_within(ipaddress.ip_address("10.0.3.255"), networks)
    assert is_within(ipaddress.ip_address("::1"), networks)
    assert not is_within(ipaddress.ip_address("10.0.4.0"), networks)
    assert not is_within(ipaddress.ip_address("::10.0.3.1"), networks)
    for wrong in ("10.0.3.1/24", "localhost", ""):
        with pytest.raises(ValueError, match=r"."):
            parse_networks([wrong])


def test_an_error_message_shows_no_password() -> None:
    assert shown("https://me:secret@host/x") == "https://***@host/x"
    assert shown("https://me:sec@ret@host/x") == "https://***@host/x"
    assert len(shown("https://host/" + "x" * 900)) < 110
