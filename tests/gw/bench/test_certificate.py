"""gw.bench.certificate: trusted at its address by clients that were given it, and by no others."""

from __future__ import annotations

import ssl
import stat
from pathlib import Path

import pytest

from gw.bench.certificate import Certificate, make_certificate


def shake_hands(shown: Certificate, client: ssl.SSLContext, host: str) -> None:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(shown.chain, shown.key)
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname=host), server.wrap_bio(up, down, server_side=True)]
    for end in ends * 2:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    assert ends[0].version() == ends[1].version() == "TLSv1.3"


def test_the_certificate_is_valid_for_its_address_only(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=str(made.chain))
    shake_hands(made, trusting, "127.0.0.1")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"127\.0\.0\.2"):
        shake_hands(made, trusting, "127.0.0.2")


def test_a_client_without_the_certificate_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="self-signed"):
        shake_hands(make_certificate(tmp_path), ssl.create_default_context(), "127.0.0.1")


def test_only_the_owner_can_read_the_key(tmp_path: Path) -> None:
    assert stat.S_IMODE(make_certificate(tmp_path).key.stat().st_mode) == 0o600
