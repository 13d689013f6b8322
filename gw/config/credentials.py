"""Secrets from files: one file for each, named like its environment variable.

The folders are SUBMILLI_CREDENTIALS, then systemd's CREDENTIALS_DIRECTORY. A file replaces the variable of its name, and an empty
one removes it. systemd fills its folder at the start of a unit only, whereas a reload reads the first folder again.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from gw.config import ENVIRONMENT, field_of

#: The folder of an operator, the folder of systemd. Source: systemd.exec(5), CREDENTIALS.
FOLDERS: Final = ("SUBMILLI_CREDENTIALS", "CREDENTIALS_DIRECTORY")
#: A key or a password is below 300 bytes.
MAX_BYTES: Final = 4096
#: A variable, which is a file's name too: no path.
_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,127}")


def with_credentials(environ: Mapping[str, str], more: Iterable[str] = ()) -> tuple[dict[str, str], list[str]]:
    """Return the environment with the files' secrets, and a sentence for each unusable file.

    `more`: variables of the user's choice that are secrets.
    """
    resolved = {name: value for name, value in environ.items() if name not in FOLDERS}
    found: list[str] = []
    folders = [Path(environ[name]) for name in FOLDERS if environ.get(name)]
    for variable in dict.fromkeys([*ENVIRONMENT.values(), *_files_of_accounts(folders, found), *more]):
        for folder in folders:
            try:
                resolved[variable] = _read(folder / variable)
            except FileNotFoundError:
                continue
            except OSError as error:
                found.append(f"the secret {folder / variable} cannot be read: {error.strerror or error}")
            break
    return resolved, found


def tokens_in(content: bytes) -> frozenset[str]:
    """Return the variables of MCP servers' tokens in a configuration; none of an invalid one."""
    try:
        agents = tomllib.loads(content.decode()).get("agents", {})
        servers = [server for agent in agents.values() for server in agent.get("mcp", ())]
        named = [server.get("authorization_env") for server in servers]
    except (ValueError, AttributeError, TypeError):  # whatever is wrong, the check of the file reports it
        return frozenset()
    return frozenset(name for name in named if isinstance(name, str) and _VARIABLE.fullmatch(name))


def _files_of_accounts(folders: list[Path], found: list[str]) -> list[str]:
    """Return the names of files with a secret of some Twilio account: the configuration, read later, has the accounts."""
    names: list[str] = []
    for folder in folders:
        try:
            names += sorted(file.name for file in folder.iterdir() if field_of(file.name))
        except FileNotFoundError:
            continue
        except OSError as error:
            found.append(f"the secrets in {folder} cannot be listed: {error.strerror or error}")
    return names


def _read(path: Path) -> str:
    """Return a file's text without its last line break. Raises OSError."""
    if path.exists() and not path.is_file():
        raise OSError("it is not a file")
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise OSError(f"it is longer than {MAX_BYTES} bytes")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise OSError("it is not UTF-8") from None
