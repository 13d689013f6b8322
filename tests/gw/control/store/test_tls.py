"""gw.control.store.tls: which URLs mean an encrypted connection, and what is verified."""

from __future__ import annotations

import ssl

import pytest

from gw.config.store_url import MysqlUrl, parse_store_url
from gw.control.store.tls import tls_of
from tests.mariadb import MariaDB

REMOTE = "mysql+pymysql://u@db.example/name"


def mysql(text: str) -> MysqlUrl:
    url = parse_store_url(text)
    assert isinstance(url, MysqlUrl)
    return url


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("mysql://u@127.0.0.1/n", None),
        ("mysql://u@[::1]/n", None),
        ("mysql://u@localhost/n", None),
        ("mysql://u@/n?unix_socket=/run/s", None),
        ("mysql://u@db.example/n?unix_socket=/run/s", None),
        (f"{REMOTE}?ssl_disabled=true", None),
        (f"{REMOTE}?ssl=false", None),
        (REMOTE, (False, ssl.CERT_NONE, False)),
        (f"{REMOTE}?ssl=true", (True, ssl.CERT_REQUIRED, True)),
        (f"{REMOTE}?ssl_disabled=no", (False, ssl.CERT_NONE, False)),
        (f"{REMOTE}?ssl=true&ssl_verify=false", (True, ssl.CERT_NONE, False)),
        (f"{REMOTE}?ssl_check_hostname=no", (True, ssl.CERT_REQUIRED, False)),
        ("mysql://u@127.0.0.1/n?ssl=true", (True, ssl.CERT_REQUIRED, True)),
    ],
)
def test_how_connections_are_encrypted(url: str, expected: tuple[bool, ssl.VerifyMode, bool] | None) -> None:
    tls = tls_of(mysql(url))
    found = None if tls is None else (tls.required, tls.context().verify_mode, tls.context().check_hostname)
    assert found == expected


def test_a_certificate_of_the_client_is_loaded(mariadb: MariaDB) -> None:
    tls = tls_of(mysql(f"{REMOTE}?ssl_ca={mariadb.ca}"))
    assert tls is not None
    assert tls.context() is tls.context()
    broken = tls_of(mysql(f"{REMOTE}?ssl_ca={mariadb.ca}&ssl_cert=/no/such/file"))
    assert broken is not None
    with pytest.raises(OSError, match="No such file"):
        broken.context()
