"""Laws of gw.config.load and gw.config.store_url: only ConfigError, sentences of one line, and no secret in any of them."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Final

from gw.config import Config
from gw.config.load import load, problems, show
from gw.config.store_url import MysqlUrl, parse_store_url
from gw.errors import ConfigError

_SECRET: Final = "hunter2-in-the-environment"
_ENVIRON: Final = {"TWILIO_AUTH_TOKEN": _SECRET, "OPENAI_API_KEY": "sk-" + _SECRET, "SUBMILLI_DB_PASSWORD": _SECRET}


def toml(data: bytes) -> None:
    with tempfile.NamedTemporaryFile(suffix=".toml", dir=_DIRECTORY) as file:
        file.write(data)
        file.flush()
        path = Path(file.name)
        found = problems(path, _ENVIRON, serving=False)
        try:
            config = load(path, _ENVIRON, serving=False)
        except ConfigError as error:
            assert found and all(sentence in str(error) for sentence in found)
        else:
            assert not found and isinstance(config, Config)
            assert _SECRET not in json.dumps(show(config))
    for sentence in found:
        assert sentence and _SECRET not in sentence and len(sentence) < 1000 + 2 * len(data), sentence


#: Memory, where there is any: a file is written for every input.
_DIRECTORY: Final = "/dev/shm" if Path("/dev/shm").is_dir() else None


def store_url(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        url = parse_store_url(text)
    except ConfigError as error:
        assert str(error)
        return
    if isinstance(url, MysqlUrl):
        assert url.user and url.database and (url.host or "unix_socket" in url.options)
        assert url.port is None or 0 < url.port < 1 << 16
    else:
        assert url.path not in ("", ":memory:")
