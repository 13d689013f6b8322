"""Endpoints of the order line: two tools and a receiver of events, in plain WSGI.

    python endpoints.py 8070             on this machine
    gunicorn endpoints:application       behind a proxy with TLS

The environment has SUBMILLI_HOOK_SECRET, the same as the gateway's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import sqlite3
import sys
import time
from collections.abc import Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.types import StartResponse, WSGIEnvironment

MAX_BODY_BYTES = 1 << 20
SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (number TEXT PRIMARY KEY, state TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS returns (key TEXT PRIMARY KEY, number TEXT NOT NULL, reason TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS events (id TEXT PRIMARY KEY, type TEXT NOT NULL, body TEXT NOT NULL);
INSERT OR IGNORE INTO orders VALUES ('1001', 'shipped, arrives on Thursday'), ('1002', 'in preparation');
"""


def open_database() -> sqlite3.Connection:
    """Open the shop's database. Each statement is one transaction."""
    database = sqlite3.connect(os.environ.get("ORDERS_DB", "orders.db"), isolation_level=None)
    database.executescript(SCHEMA)
    return database


# -- the tools ------------------------------------------------------------------------------------------------------------


def find_order(database: sqlite3.Connection, number: str) -> dict[str, Any]:
    """Return the state of an order, for the agent."""
    row = database.execute("SELECT state FROM orders WHERE number = ?", (number,)).fetchone()
    return {"number": number, "state": row[0]} if row else {"error": "there is no order with this number"}


def return_order(database: sqlite3.Connection, key: str, number: str, reason: str) -> dict[str, Any]:
    """Register a return, once for each key: a repeated request has the key of the first."""
    database.execute("INSERT OR IGNORE INTO returns VALUES (?, ?, ?)", (key, number, reason))
    return {"number": number, "returned": True}


# -- the requests ---------------------------------------------------------------------------------------------------------


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer a request of the gateway."""
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length) if length <= MAX_BODY_BYTES else b""
    if not is_from_submilli(os.environ["SUBMILLI_HOOK_SECRET"], environ.get("HTTP_SUBMILLI_SIGNATURE", ""), body):
        start_response("401 Unauthorized", [("Content-Length", "0")])
        return []
    database = open_database()
    try:
        status, answer = respond(database, environ["PATH_INFO"], environ.get("HTTP_IDEMPOTENCY_KEY", ""), json.loads(body))
    finally:
        database.close()
    content = json.dumps(answer).encode()
    start_response(status, [("Content-Type", "application/json"), ("Content-Length", str(len(content)))])
    return [content]


def respond(database: sqlite3.Connection, path: str, key: str, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return status and answer of a request whose signature was checked."""
    arguments = request.get("arguments", {})
    match path:
        case "/tools/find_order":
            return "200 OK", find_order(database, arguments["number"])
        case "/tools/return_order":
            return "200 OK", return_order(database, key, arguments["number"], arguments.get("reason", ""))
        case "/events":
            keep_event(database, request)
            return "200 OK", {}
    return "404 Not Found", {"error": f"there is nothing at {path}"}


def keep_event(database: sqlite3.Connection, event: dict[str, Any]) -> None:
    """Keep an event. It may come twice, always with the same id."""
    kept = database.execute("INSERT OR IGNORE INTO events VALUES (?, ?, ?)", (event["id"], event["type"], json.dumps(event)))
    if kept.rowcount:
        print(event["type"], event["call"]["sid"], event["data"].get("tool") or event["data"].get("reason") or "", flush=True)


def is_from_submilli(secret: str, header: str, body: bytes) -> bool:
    """Return whether a request was signed with the secret, not more than five minutes ago."""
    parts = [part.strip().partition("=") for part in header.split(",")]
    issued = next((value for name, _, value in parts if name == "t"), "")
    if not issued.isdecimal() or abs(time.time() - int(issued)) > 300:
        return False
    expected = hmac.new(secret.encode(), f"{issued}.".encode() + body, hashlib.sha256).hexdigest()
    given = [value for name, _, value in parts if name == "v1"]
    return any(hmac.compare_digest(expected.encode(), value.encode()) for value in given)


class Quiet(WSGIRequestHandler):
    """Without a line for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        pass


if __name__ == "__main__":
    make_server("127.0.0.1", int(sys.argv[1]), application, handler_class=Quiet).serve_forever()
