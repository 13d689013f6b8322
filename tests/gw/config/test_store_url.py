"""gw.config.store_url: one grammar for the configuration and for the store itself."""

from __future__ import annotations

from pathlib import Path

import pytest

import gw.config
from gw.config import Config
from gw.config.rules import broken_rules
from gw.config.store_url import MysqlUrl, SqliteUrl, parse_store_url, with_absolute_paths
from gw.control.store.engine import open_backend
from gw.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///var/submilli.db", "var/submilli.db"),
        ("sqlite:////var/lib/submilli.db", "/var/lib/submilli.db"),
        ("sqlite+pysqlite:///x.db", "x.db"),
        ("sqlite:///a%20file@with:signs#.db", "a file@with:signs#.db"),
    ],
)
def test_a_sqlite_url_is_a_path(text: str, path: str) -> None:
    assert parse_store_url(text) == SqliteUrl(path)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mariadb+pymysql"])
def test_a_mysql_url_has_user_host_and_database(scheme: str) -> None:
    assert parse_store_url(f"{scheme}://me@db.example.com:3307/calls") == MysqlUrl("me", "db.example.com", 3307, "calls", {}, {})


def test_a_mysql_url_may_have_options() -> None:
    url = parse_store_url("mysql://m%40e@/calls?unix_socket=/run/s&ssl=Yes&ssl_verify=0&ssl_ca=/a&ssl_ca=/b&ssl_cert=")
    assert url == MysqlUrl(
        "m@e", "", None, "calls", {"unix_socket": "/run/s", "ssl_ca": "/b"}, {"ssl": True, "ssl_verify": False}
    )


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:///var/x.db", "sqlite:////a%20b/var/x.db"),
        ("sqlite:////var/x.db", "sqlite:////var/x.db"),
        ("sqlite:///%2Fx.db", "sqlite:///%2Fx.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("mysql://m@h/d?ssl_ca=ca.pem&ssl_key=/k.pem", "mysql://m@h/d?ssl_ca=/a%20b/ca.pem&ssl_key=/k.pem"),
        ("mysql://m@/d?unix_socket=s", "mysql://m@/d?unix_socket=/a%20b/s"),
        ("nonsense", "nonsense"),
    ],
)
def test_relative_paths_begin_at_a_folder(text: str, path: str) -> None:
    assert with_absolute_paths(text, Path("/a b")) == path


REFUSED = [
    ("", "is not a database URL"),
    ("nonsense", "is not a database URL"),
    ("mysql://u@h:port/db", "is not a database URL"),
    ("mysql://u@h:0/db", "is not a database URL"),
    ("mysql://u@h/db#x", "is not a database URL"),
    ("mysql://u@[h/db", "is not a database URL"),
    ("mysql+mysqldb://u@h/db", "unsupported scheme 'mysql+mysqldb'"),
    ("postgresql://u:hunter2@h/db", "unsupported scheme 'postgresql'"),
    ("mysql://u@h", "names no database"),
    ("mysql://u@h/", "names no database"),
    ("mysql://u@/db", "names no host"),
    ("mysql://h/db", "names no user"),
    ("mysql://u:hunter2@h/db", "set SUBMILLI_DB_PASSWORD"),
    ("mysql://u@h/db?ssl=1&Password=hunter2", "set SUBMILLI_DB_PASSWORD"),
    ("mysql://u@h/db?passwd=hunter2", "set SUBMILLI_DB_PASSWORD"),
    ("mysql://u@h/db?sslca=x", "unknown options: sslca"),
    ("mysql://u@h/db?ssl=maybe", "has ssl=maybe, which is neither true nor false"),
    ("sqlite://", "names no file"),
    ("sqlite:///", "names no file"),
    ("sqlite://host/x.db", "names no file"),
    ("sqlite:///:memory:", "names no file"),
    ("sqlite:///x.db?mode=ro", "has options, which SQLite does not take"),
]


@pytest.mark.parametrize(("text", "fault"), REFUSED)
def test_an_error_names_the_key_the_fault_and_what_to_do(text: str, fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_store_url(text)
    (sentence,) = caught.value.problems
    assert sentence.startswith("store.url ")
    assert fault in sentence
    assert "expected for example" in sentence or "SUBMILLI_DB_PASSWORD" in sentence
    assert "hunter2" not in sentence


#: Two separate grammars would easily disagree about these.
BORDERLINE = [
    ("mysql+pymysql://me@db/calls?charset=utf8mb4", False),
    ("mysql+pymysql://me@db/calls?ssl=maybe", False),
    ("sqlite:///var/submilli.db?mode=ro", False),
    ("mysql://me@db/calls", True),
    ("mariadb+pymysql://me@db/calls", True),
    ("sqlite+pysqlite:///var/submilli.db", True),
    ("mysql+pymysql:///calls", False),
    ("mysql+pymysql://db/calls", False),
    ("mysql+pymysql://me:secret@db/calls", False),
    ("mysql+pymysql://me:@db/calls", True),
    ("sqlite://host/submilli.db", False),
]


@pytest.mark.parametrize(("text", "accepted"), BORDERLINE)
def test_the_configuration_and_the_store_accept_the_same_urls(text: str, accepted: bool) -> None:
    store = gw.config.Store(url=text)
    is_broken = any("store.url" in keys for keys, _ in broken_rules(Config(store=store), needed=frozenset()))
    assert is_broken is not accepted
    if accepted:
        open_backend(store, "").close()
    else:
        with pytest.raises(ConfigError, match=r"^store\.url"):
            open_backend(store, "")
