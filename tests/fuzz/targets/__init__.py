"""Fuzz targets: functions that take any bytes and check a law of one parser.

Each raises AssertionError, or the parser's own unexpected error, on bytes that break the law. `tests/fuzz/test_corpus.py` runs
them over the kept corpus and under hypothesis, `tests/fuzz/run.py` under atheris. A target is one function in a file here and one
line in `TARGETS`; its corpus is the folder of its name.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.fuzz.targets import ai_events, bus_messages, configuration, handshake, hooks, http, secrets, twilio_messages, websocket

CORPUS: Final = Path(__file__).resolve().parent.parent / "corpus"

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "http_head": http.head,
    "http_body": http.chunked_body,
    "handshake": handshake.answer,
    "websocket_client": websocket.as_client,
    "websocket_server": websocket.as_server,
    "twilio": twilio_messages.message,
    "ai": ai_events.event,
    "ai_split": ai_events.long_delta,
    "parrot": ai_events.parrot,
    "bus_events": bus_messages.events,
    "bus_commands": bus_messages.commands,
    "spool": bus_messages.spooled,
    "config": configuration.toml,
    "store_url": configuration.store_url,
    "token": secrets.token,
    "signature": secrets.signature,
    "form": secrets.form,
    "hook_url": hooks.url,
    "hook_signature": hooks.signature,
    "hook_answer": hooks.answer,
    "tool_arguments": hooks.arguments,
}
