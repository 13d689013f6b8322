"""The grammar of `store.url`.

    sqlite:///var/submilli.db                                  a path; four slashes for an absolute one
    mysql+pymysql://user@host:3306/database?ssl_ca=/etc/ca.pem
    mysql+pymysql://user@/database?unix_socket=/run/mysqld/mysqld.sock

`sqlite+pysqlite`, `mysql`, `mariadb` and `mariadb+pymysql` mean the same drivers. The password comes from the environment.
Relative paths begin at the folder of the configuration file. Pure: opens and resolves nothing. No error quotes the URL: it may
contain a password.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from gw.errors import ConfigError

_SQLITE: Final = frozenset({"sqlite", "sqlite+pysqlite"})
_MYSQL: Final = frozenset({"mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"})
_FLAGS: Final = frozenset({"ssl", "ssl_check_hostname", "ssl_verify", "ssl_disabled"})
_TEXTS: Final = frozenset({"ssl_ca", "ssl_cert", "ssl_key", "unix_socket"})
#: An option of _TEXTS, and its relative path.
_RELATIVE_OPTION: Final = re.compile(rf"([?&](?:{'|'.join(sorted(_TEXTS))})=)(?!/|%2[Ff])([^&]+)")
_FLAG_VALUES: Final = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_SQLITE_EXAMPLE: Final = "sqlite:///var/submilli.db"
_MYSQL_EXAMPLE: Final = "mysql+pymysql://user@host/database"


class SqliteUrl(NamedTuple):
    """A SQLite file."""

    path: str


class MysqlUrl(NamedTuple):
    """A MySQL or MariaDB database. An empty `host` goes with the option `unix_socket`."""

    user: str
    host: str
    port: int | None
    database: str
    options: dict[str, str]  # of _TEXTS
    flags: dict[str, bool]  # of _FLAGS


def parse_store_url(text: str) -> SqliteUrl | MysqlUrl:
    """Parse `store.url`. Raises ConfigError with one sentence: the key, the fault, an example."""
    scheme, separator, rest = text.partition("://")
    if not separator:
        raise _error("is not a database URL", f"{_SQLITE_EXAMPLE} or {_MYSQL_EXAMPLE}")
    if scheme in _SQLITE:
        return _sqlite(rest)
    if scheme in _MYSQL:
        return _mysql(text)
    raise _error(f"has the unsupported scheme {scheme!r}", f"{_SQLITE_EXAMPLE} or {_MYSQL_EXAMPLE}")


def with_absolute_paths(text: str, folder: Path) -> str:
    """Return `store.url` with absolute paths. Relative ones begin at `folder`, an absolute path."""
    scheme, separator, rest = text.partition("://")
    if scheme in _MYSQL:
        return _RELATIVE_OPTION.sub(lambda found: f"{found[1]}{quote(str(folder))}/{found[2]}", text)
    place = rest.removeprefix("/")
    is_relative = rest.startswith("/") and place not in ("", ":memory:") and not unquote(place).startswith("/")
    return f"{scheme}{separator}/{quote(str(folder))}/{place}" if scheme in _SQLITE and is_relative else text


def _sqlite(rest: str) -> SqliteUrl:
    place, _, options = rest.partition("?")
    if options:
        raise _error("has options, which SQLite does not take", _SQLITE_EXAMPLE)
    path = unquote(place.removeprefix("/"))
    if not place.startswith("/") or path in ("", ":memory:"):
        raise _error("names no file", _SQLITE_EXAMPLE)
    return SqliteUrl(path)


def _mysql(text: str) -> MysqlUrl:
    try:
        url = urlsplit(text)
        port = url.port
    except ValueError:
        raise _error("is not a database URL", _MYSQL_EXAMPLE) from None
    if port == 0 or url.fragment:
        raise _error("is not a database URL", _MYSQL_EXAMPLE)
    found = dict(parse_qsl(url.query))
    if url.password or any("pass" in name.lower() for name in found):
        raise ConfigError(["store.url contains a password: remove it, and set SUBMILLI_DB_PASSWORD in the environment"])
    if unknown := sorted(found.keys() - _FLAGS - _TEXTS):
        raise _error(f"has unknown options: {', '.join(unknown)}", f"{_MYSQL_EXAMPLE}?ssl_ca=/etc/ssl/ca.pem")
    if not url.username:
        raise _error("names no user", _MYSQL_EXAMPLE)
    if not url.hostname and "unix_socket" not in found:
        raise _error("names no host", f"{_MYSQL_EXAMPLE} or mysql+pymysql://user@/database?unix_socket=/run/mysqld/mysqld.sock")
    database = unquote(url.path.removeprefix("/"))
    if not database:
        raise _error("names no database", _MYSQL_EXAMPLE)
    flags = {name: _flag(name, value) for name, value in found.items() if name in _FLAGS}
    options = {name: value for name, value in found.items() if name in _TEXTS}
    return MysqlUrl(unquote(url.username), url.hostname or "", port, database, options, flags)


def _flag(name: str, value: str) -> bool:
    if value.lower() not in _FLAG_VALUES:
        raise _error(f"has {name}={value}, which is neither true nor false", f"{_MYSQL_EXAMPLE}?{name}=true")
    return _FLAG_VALUES[value.lower()]


def _error(fault: str, example: str) -> ConfigError:
    return ConfigError([f"store.url {fault}; expected for example {example}"])
