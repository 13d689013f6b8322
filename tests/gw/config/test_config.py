"""gw.config: addresses."""

from __future__ import annotations

import pytest

from gw.config import host_and_port


def test_host_and_port():
    assert host_and_port("127.0.0.1:8080") == ("127.0.0.1", 8080)
    assert host_and_port("[::1]:0") == ("::1", 0)
    assert host_and_port(":80") == ("", 80)
    for text in ("8080", "host:", "host:http", "host:65536", "::1:80", "host:-1"):
        with pytest.raises(ValueError, match="is not an address"):
            host_and_port(text)
