"""gw.protocol.loopback: names of this machine, and origins of web pages."""

from __future__ import annotations

import pytest

from gw.protocol.loopback import foreign


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8080", "127.1.2.3:1", "[::1]", "[::1]:8080", "localhost", "LocalHost:80", "127.0.0.1:"]
)
def test_this_machine(host: str) -> None:
    assert foreign(host, None) == ""
    assert foreign(host, f"http://{host}") == foreign(host.upper(), f"https://{host}") == ""


def test_a_program_without_a_host_is_accepted() -> None:
    assert foreign(None, None) == ""
    assert foreign(None, "http://127.0.0.1") == "foreign_origin"


@pytest.mark.parametrize(
    "host",
    [
        "", ":8080", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "localhost.",
        "10.0.0.1", "[::2]:80", "[::1", "::1", "0.0.0.0:8080", "127.0.0.1:x", "user@127.0.0.1", "2130706433",
    ],
)  # fmt: skip
def test_another_host_is_foreign(host: str) -> None:
    assert foreign(host, None) == "foreign_host"


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "http://evil.example",
        "http://127.0.0.1",
        "http://127.0.0.1:3000",
        "http://localhost:8080",
        "http://127.0.0.1:8080/",
    ],
)
def test_another_origin_is_foreign(origin: str) -> None:
    assert foreign("127.0.0.1:8080", origin) == "foreign_origin"
