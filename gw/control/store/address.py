"""What the configured URL means: which database, by which driver, over which kind of connection.

Pure but for `Tls.context`, which reads certificates once and on first use: a TLS context costs some 20 ms, and PyMySQL left to
itself builds one for every connection. The password joins here and nowhere else; SQLAlchemy's URL hides it when printed.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Final, NamedTuple

from sqlalchemy import exc
from sqlalchemy.engine import URL, make_url

from gw.config.rules import is_loopback
from gw.errors import ConfigError

_MYSQL: Final = frozenset({"mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"})
_SQLITE: Final = frozenset({"sqlite", "sqlite+pysqlite"})
_TLS_KEYS: Final = frozenset({"ssl", "ssl_ca", "ssl_cert", "ssl_key", "ssl_check_hostname", "ssl_verify", "ssl_disabled"})
_OTHER_KEYS: Final = frozenset({"unix_socket"})
_WORDS: Final = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


class Tls:
    """How connections are encrypted.

    `required`: a server without TLS is refused. Otherwise TLS is used where the server offers it, unverified: that keeps
    a listener out, not an impostor. Give `ssl_ca` for that.
    """

    def __init__(self, *, required: bool, verify: bool, check_hostname: bool, ca: str | None, cert: str | None, key: str | None):
        self.required = required
        self._verify = verify
        self._check_hostname = check_hostname
        self._ca = ca
        self._cert = cert
        self._key = key
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The one context of all connections. Raises OSError when a certificate cannot be read."""
        if self._context is None:
            context = ssl.create_default_context(cafile=self._ca)
            # Certificates that MySQL makes for itself lack what Python 3.13 asks for by default.
            context.verify_flags &= ~ssl.VERIFY_X509_STRICT
            context.check_hostname = self._verify and self._check_hostname
            context.verify_mode = ssl.CERT_REQUIRED if self._verify else ssl.CERT_NONE
            if self._cert is not None:
                context.load_cert_chain(self._cert, self._key)
            self._context = context
        return self._context


class Address(NamedTuple):
    """A URL understood. `tls` is None where connections are plain."""

    url: URL
    is_mysql: bool
    tls: Tls | None = None


def parse_address(text: str, password: str) -> Address:
    """Take `store.url` apart. Raises ConfigError, which never quotes the URL's password."""
    try:
        url = make_url(text)
    except (exc.ArgumentError, ValueError) as error:
        raise ConfigError(["store.url is not a database URL, such as mysql+pymysql://user@host/database"]) from error
    if url.drivername in _SQLITE:
        if not url.database or url.database == ":memory:":
            raise ConfigError(["store.url names no file, such as sqlite:///var/submilli.db"])
        if url.query:
            raise ConfigError([f"store.url has options SQLite is not given: {', '.join(sorted(url.query))}"])
        return Address(url.set(drivername="sqlite+pysqlite"), is_mysql=False)
    if url.drivername not in _MYSQL:
        raise ConfigError([f"store.url is of a kind not supported: {url.drivername}; use mysql+pymysql or sqlite"])
    return _mysql(url, password)


def _mysql(url: URL, password: str) -> Address:
    if not url.database:
        raise ConfigError(["store.url names no database: mysql+pymysql://user@host/database"])
    unknown = sorted(set(url.query) - _TLS_KEYS - _OTHER_KEYS)
    if unknown:
        raise ConfigError([f"store.url has unknown options: {', '.join(unknown)}"])
    options = {key: value if isinstance(value, str) else value[-1] for key, value in url.query.items()}
    tls = _tls(options, local=_is_local(url.host, options.get("unix_socket")))
    url = url.set(drivername="mysql+pymysql").difference_update_query(_TLS_KEYS)
    return Address(url.set(password=password) if password else url, is_mysql=True, tls=tls)


def _tls(options: Mapping[str, str], *, local: bool) -> Tls | None:
    named = {key for key in options if key in _TLS_KEYS and key != "ssl_disabled"}
    if _flag(options, "ssl_disabled", False) or not _flag(options, "ssl", True):
        return None
    if not named and local:
        return None  # nobody listens between a process and itself
    ca, cert, key = (options.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key"))
    verify = _flag(options, "ssl_verify", bool(named))
    return Tls(
        required=bool(named),
        verify=verify,
        check_hostname=_flag(options, "ssl_check_hostname", True),
        ca=ca,
        cert=cert,
        key=key,
    )


def _flag(options: Mapping[str, str], name: str, default: bool) -> bool:
    text = options.get(name)
    if text is None:
        return default
    if text.lower() not in _WORDS:
        raise ConfigError([f"store.url: {name} is true or false, not {text!r}"])
    return _WORDS[text.lower()]


def _is_local(host: str | None, unix_socket: str | None) -> bool:
    return bool(unix_socket) or not host or is_loopback(host)
