"""Reads the configuration, and reports all of its errors together.

Each key is decoded separately, so one error hides no other. Keys that failed have their defaults while `gw.config.rules` checks
combinations of keys. A secret in the file is an error, and no error quotes a secret. Opens nothing but the file.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from gw.config import (
    ACCOUNT_ENVIRONMENT,
    ENVIRONMENT,
    SECRETS_OF,
    AccountSecrets,
    Agent,
    Config,
    Consent,
    EventHook,
    Greeting,
    Hooks,
    Mcp,
    Price,
    Route,
    Secrets,
    Tool,
)
from gw.config.credentials import FOLDERS, with_credentials
from gw.config.rules import broken_rules, without_password
from gw.config.store_url import with_absolute_paths
from gw.errors import ConfigError

CONFIG_VARIABLE: Final = "SUBMILLI_CONFIG"
#: The folder of the file, for a process that reads it by a descriptor.
FOLDER_VARIABLE: Final = "SUBMILLI_CONFIG_FOLDER"
#: Lines that are not TOML, up to which a command still finds the admin socket in the rest of the file.
_MAX_WRONG_LINES: Final = 10
#: Longest part of a wrong value that an error quotes.
_SHOWN_CHARACTERS: Final = 60

#: Likely keys of a secret in the file, and the environment variable to use instead.
_SECRET_KEYS: Final = {
    **ENVIRONMENT,
    **{variable.lower(): variable for variable in ENVIRONMENT.values()},
    "auth_token": "TWILIO_AUTH_TOKEN",
    "api_key": "OPENAI_API_KEY",
    "password": "SUBMILLI_DB_PASSWORD",
}
#: Keys of earlier versions, and their present names. "*" is any agent.
_RENAMED_KEYS: Final = {
    "server.drain_s": "server.stop_timeout_s",
    "server.drain_timeout_s": "server.reload_timeout_s",
    "agents.*.silence_ms": "agents.*.turns.silence_ms",
}
#: An OpenAI key, in any value.
_API_KEY: Final = re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")


def _fields(kind: type[msgspec.Struct]) -> tuple[inspect.Field, ...]:
    info = inspect.type_info(kind)
    assert isinstance(info, inspect.StructType)
    return info.fields


def _tables(kind: type[msgspec.Struct]) -> dict[str, type[msgspec.Struct]]:
    """Return the fields that are tables of the file."""
    return {
        field.name: field.type.cls
        for field in _fields(kind)
        if isinstance(field.type, inspect.StructType) and field.type.cls is not Secrets
    }


_SECTIONS: Final = _tables(Config)
#: Tables of tables, under names of the user's choice, and their default.
_NAMED: Final[dict[str, tuple[type[msgspec.Struct], dict[str, Any]]]] = {
    "tools": (Tool, {}),
    "agents": (Agent, {"default": Agent()}),
    "prices": (Price, {}),
}
#: Lists of tables.
_LISTS: Final[dict[str, type[msgspec.Struct]]] = {"events": EventHook, "routes": Route}


def _agent_tables(agent: str) -> dict[str, type[msgspec.Struct]]:
    """Return the tables of an agent, under their names in the file."""
    path = f"agents.{agent}"
    return {path: Agent, **{f"{path}.{name}": kind for name, kind in _tables(Agent).items()}}


def load(path: Path | None, environ: Mapping[str, str], *, serving: bool = True, process: str = "") -> Config:
    """Return the configuration: the file's keys, the secrets of credentials and environment, and defaults.

    `path` None: the file in SUBMILLI_CONFIG, or none. `serving` False: for commands that only read the gateway's data; secrets
    of a running gateway may be missing. `process`: a key of SECRETS_OF, for a process that reads and needs no other secrets.
    Raises: ConfigError with every problem.
    """
    config, found = _read(path, environ, serving=serving, process=process)
    if found:
        raise ConfigError(found)
    return config


def problems(path: Path | None, environ: Mapping[str, str], *, serving: bool = True) -> list[str]:
    """Return every problem, one sentence each: the key, the value found, the value expected."""
    return _read(path, environ, serving=serving, process="")[1]


def admin_socket(path: Path | None, environ: Mapping[str, str]) -> tuple[Path, list[str]]:
    """Return the path of the admin socket, and every problem of the file.

    None of the problems concerns the socket.

    Raises: ConfigError for a file that cannot be read, or with problems that may: another gateway must not get the command.
    """
    config, found = _read(path, environ, serving=False, process="", lenient=True)
    words = " ".join(found).replace(str((path or Path()).absolute()), "")  # a folder may have any name
    if re.search("admin_socket|cannot be read|is not UTF-8", words):
        raise ConfigError([*found, "a running gateway can be named with --socket too"])
    return Path(config.ops.admin_socket), found


def show(config: Config) -> dict[str, Any]:
    """Return the configuration as plain values, secrets as "set" or "not set", URLs without passwords."""
    shown: dict[str, Any] = msgspec.to_builtins(config)
    shown["store"]["url"] = without_password(config.store.url)
    shown["secrets"] = _set_or_not(config.secrets, ENVIRONMENT)
    if config.secrets.accounts:
        shown["secrets"]["accounts"] = {
            name: _set_or_not(secrets, ACCOUNT_ENVIRONMENT) for name, secrets in config.secrets.accounts.items()
        }
    if config.secrets.mcp:
        shown["secrets"]["mcp"] = {variable: "set" if token else "not set" for variable, token in config.secrets.mcp.items()}
    return shown


def _set_or_not(secrets: AccountSecrets, fields: Mapping[str, str]) -> dict[str, Any]:
    return {field: "set" if getattr(secrets, field) else "not set" for field in fields}


# -- reading ----------------------------------------------------------------------------------------------------------


def _read(
    path: Path | None, environ: Mapping[str, str], *, serving: bool, process: str, lenient: bool = False
) -> tuple[Config, list[str]]:
    """Return the configuration, and every problem. `lenient`: of a file that is not TOML, keep the other lines."""
    named = environ.get(CONFIG_VARIABLE, "")
    if path is None and named:
        path = Path(named)
    document, found = ({}, []) if path is None else _parse(path, lenient=lenient)
    read = SECRETS_OF.get(process, frozenset(ENVIRONMENT))
    in_file: list[str] = []
    values, failed = _decode(document, in_file)
    config = Config(**values)
    tokens = sorted({server.authorization_env for agent in config.agents.values() for server in agent.mcp} - {""})
    environ, unreadable = with_credentials(environ, tokens)
    found += unreadable if serving else []
    reads_tokens = "openai_api_key" in read
    secrets, wrong = _secrets(environ, read, config.twilio.accounts, tokens if reads_tokens else ())
    found += [*wrong, *in_file]
    folder = Path(environ.get(FOLDER_VARIABLE) or (path.parent if path is not None else "."))
    config = _with_paths(msgspec.structs.replace(config, secrets=secrets), folder.absolute())
    found += [
        sentence
        for keys, sentence in broken_rules(config, needed=read if serving else frozenset(), schemas=process != "worker")
        if not failed & keys
    ]
    return config, found


def _with_paths(config: Config, folder: Path) -> Config:
    """Return the configuration with absolute paths. Relative ones begin at `folder`, that of the configuration file."""

    def with_greeting(agent: Agent) -> Agent:
        words = agent.greeting
        if not isinstance(words, Greeting) or not words.file:
            return agent
        return msgspec.structs.replace(agent, greeting=msgspec.structs.replace(words, file=str(folder / words.file)))

    ops, recording, outbound = config.ops, config.recording, config.outbound
    notice = recording.consent
    if isinstance(notice, Consent) and notice.file:
        recording = msgspec.structs.replace(recording, consent=msgspec.structs.replace(notice, file=str(folder / notice.file)))
    return msgspec.structs.replace(
        config,
        ops=msgspec.structs.replace(ops, admin_socket=str(folder / ops.admin_socket), var_dir=str(folder / ops.var_dir)),
        recording=msgspec.structs.replace(recording, fetch_dir=str(folder / recording.fetch_dir) if recording.fetch_dir else ""),
        store=msgspec.structs.replace(config.store, url=with_absolute_paths(config.store.url, folder)),
        agents={name: with_greeting(agent) for name, agent in config.agents.items()},
        outbound=msgspec.structs.replace(outbound, voicemail=str(folder / outbound.voicemail) if outbound.voicemail else ""),
    )


def _parse(path: Path, *, lenient: bool) -> tuple[dict[str, Any], list[str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        return {}, [f"{path.absolute()} is not UTF-8, at byte {error.start}"]
    except OSError as error:
        return {}, [f"{path.absolute()} cannot be read: {error.strerror}"]
    try:
        return tomllib.loads(text), []
    except tomllib.TOMLDecodeError as error:
        found = [f"{path.absolute()} is not valid TOML: {error}"]
    return _parse_other_lines(text, found) if lenient else ({}, found)


def _parse_other_lines(text: str, found: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Parse the text without the lines that are not TOML. `found` gets each of them that may concern the admin socket."""
    lines = text.split("\n")
    for _ in range(_MAX_WRONG_LINES):
        try:
            return tomllib.loads("\n".join(lines)), found
        except tomllib.TOMLDecodeError as error:
            place = re.search(r"at line (\d+)", str(error))
            wrong = int(place[1]) - 1 if place else _first_wrong(lines)
        if re.search(r"admin_socket|^\s*\[", lines[wrong]):
            return {}, [*found, "ops.admin_socket may be another one in the corrected file"]
        lines[wrong] = ""
    return {}, [*found, f"ops.admin_socket cannot be read: more than {_MAX_WRONG_LINES} lines are not TOML"]


def _first_wrong(lines: list[str]) -> int:
    """Return the first line that alone is not TOML: the parser named only the end of the document."""
    for number, line in enumerate(lines):
        try:
            tomllib.loads(line)
        except tomllib.TOMLDecodeError:
            return number
    return 0


def _secrets(
    environ: Mapping[str, str], read: frozenset[str], accounts: Iterable[str], tokens: Iterable[str]
) -> tuple[Secrets, list[str]]:
    """Return the secrets in `read`, of the main account and of the named ones, and a sentence for each invalid one.

    `tokens`: the variables of MCP servers' tokens.
    """
    found: list[str] = []

    def values(variables: Mapping[str, str]) -> dict[str, str]:
        taken = {field: environ.get(variable, "") if field in read else "" for field, variable in variables.items()}
        for field, value in taken.items():
            check(variables[field], value)
        return taken

    def check(variable: str, value: str) -> str:
        if value != value.strip() or not value.isprintable():
            found.append(f"{variable} begins or ends with a space, or contains a line break: remove it")
        return value

    main = values(ENVIRONMENT)
    named = {name: AccountSecrets(**values(variables_of(name))) for name in accounts}
    mcp = {variable: check(variable, environ.get(variable, "")) for variable in tokens}
    return Secrets(**main, accounts=named, mcp=mcp), found


def variables_of(account: str) -> dict[str, str]:
    """Return the environment variable of each secret of a named account."""
    return {field: variable.format(account.upper()) for field, variable in ACCOUNT_ENVIRONMENT.items()}


def _decode(document: dict[str, Any], found: list[str]) -> tuple[dict[str, Any], set[str]]:
    """Return the fields of Config, and the keys whose wrong values were replaced by defaults."""
    values: dict[str, Any] = {}
    failed: set[str] = set()
    for name, table in document.items():
        if name in _NAMED:
            kind, default = _NAMED[name]
            values[name] = _named(kind, name, table, default, found, failed)
        elif name in _LISTS:
            values[name] = _listed(_LISTS[name], name, table, found, failed)
        elif name == "secrets" and isinstance(table, dict):
            found += [_belongs_outside(f"secrets.{key}", _SECRET_KEYS.get(key.lower())) for key in table]
        elif name not in _SECTIONS:
            found.append(_unknown(name, "", [*_SECTIONS, *_NAMED, *_LISTS]))
        else:
            values[name] = _section(_SECTIONS[name], name, table, found, failed)
    return values, failed


def _named(
    kind: type[msgspec.Struct], path: str, table: Any, default: dict[str, Any], found: list[str], failed: set[str]
) -> dict[str, Any]:
    """Return the tables under `path`, by their names."""
    if not isinstance(table, dict):
        failed.add(path)
        found.append(f"{path} = {_quoted(table)}: expected tables, for example [{path}.{next(iter(default), 'name')}]")
        return default
    return {name: _section(kind, f"{path}.{name}", section, found, failed) for name, section in table.items()}


def _listed(kind: type[msgspec.Struct], path: str, tables: Any, found: list[str], failed: set[str]) -> tuple[Any, ...]:
    """Return a list of tables. Their keys are named by position, from 1."""
    if not isinstance(tables, list):
        failed.add(path)
        found.append(f"{path} = {_quoted(tables)}: expected a list of tables, for example [[{path}]]")
        return ()
    return tuple(_section(kind, f"{path}[{n}]", table, found, failed) for n, table in enumerate(tables, 1))


def _section(kind: type[msgspec.Struct], path: str, table: Any, found: list[str], failed: set[str]) -> Any:
    if not isinstance(table, dict):
        failed.add(path)
        found.append(f"{path} = {_quoted(table)}: expected a table, for example [{path}]")
        return kind()
    fields = {field.encode_name: field for field in _fields(kind)}
    values = {}
    for key, value in table.items():
        dotted = f"{path}.{key}"
        if key not in fields:
            found.append(_unknown(key, f"{path}.", list(fields)))
        elif isinstance(inner := fields[key].type, inspect.StructType):
            values[key] = _section(inner.cls, dotted, value, found, failed)
        elif isinstance(inner, inspect.DictType) and isinstance(inner.value_type, inspect.StructType):
            values[key] = _named(inner.value_type.cls, dotted, value, {}, found, failed)
        elif isinstance(inner, inspect.VarTupleType) and isinstance(inner.item_type, inspect.StructType):
            values[key] = _listed(inner.item_type.cls, dotted, value, found, failed)
        elif isinstance(value, str | list | dict) and _API_KEY.search(str(value)):
            failed.add(dotted)
            found.append(_belongs_outside(dotted, "OPENAI_API_KEY"))
        else:
            try:
                name = fields[key].name
                values[name] = getattr(msgspec.convert({key: value}, kind), name)
            except msgspec.ValidationError:
                failed.add(dotted)
                found.append(f"{dotted} = {_quoted(value)}: expected {_expected(fields[key].type)}")
    return kind(**values)


# -- sentences --------------------------------------------------------------------------------------------------------


def _unknown(key: str, path: str, known: list[str]) -> str:
    """Return the error for an unknown key: a secret, a former name, a misspelling, or a key of another table."""
    if key.lower() in _SECRET_KEYS:
        variable = _SECRET_KEYS[key.lower()]
        if path.startswith("twilio.accounts."):
            field = next((field for field, main in ENVIRONMENT.items() if main == variable), "")
            variable = variables_of(path.split(".")[2]).get(field, variable)
        return _belongs_outside(path + key, variable)
    agent = path.split(".")[1] if path.startswith("agents.") else "default"
    renamed = {old.replace("*", agent): new.replace("*", agent) for old, new in _RENAMED_KEYS.items()}
    if path + key in renamed:
        return f"{path}{key} was renamed; use {renamed[path + key]}"
    near = [path + name for name in difflib.get_close_matches(key, known, 1)]
    if not near:
        tables: dict[str, type[msgspec.Struct]] = {"tools.NAME": Tool, **_agent_tables(agent), **_SECTIONS}
        everywhere = {
            field.encode_name: f"{name}.{field.encode_name}" for name, kind in tables.items() for field in _fields(kind)
        }
        near = [everywhere[name] for name in difflib.get_close_matches(key, everywhere, 1)]
    return f"{path}{key} is unknown" + (f": did you mean {near[0]}?" if near else f"; the keys are {', '.join(sorted(known))}")


def _belongs_outside(dotted: str, variable: str | None) -> str:
    return f"{dotted} is a secret: set {variable or 'it'} in the environment, and remove it from the file"


def _quoted(value: Any) -> str:
    """Return a value in TOML notation, cut to _SHOWN_CHARACTERS."""
    if isinstance(value, dict):
        return "a table"
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _expected(kind: inspect.Type) -> str:
    """Return a type as text."""
    if isinstance(kind, inspect.Metadata):
        return _expected(kind.type)
    if isinstance(kind, inspect.UnionType):
        return ", or ".join(_expected(part) for part in kind.types)
    if isinstance(kind, inspect.StructType):
        names = [field.name for field in kind.fields]
        return f'{{ {names[0]} = "text" }}' if len(names) == 1 else f"a table of {', '.join(names)}"
    if isinstance(kind, inspect.LiteralType):
        return " or ".join(json.dumps(value) for value in kind.values)
    if isinstance(kind, inspect.BoolType):
        return "true or false"
    if isinstance(kind, inspect.StrType):
        return "text in quotes" + (", not empty" if kind.min_length else "")
    if isinstance(kind, inspect.VarTupleType):
        item = _bare(kind.item_type)
        assert isinstance(item, inspect.StrType)
        return f"a list of up to {kind.max_length} texts in quotes, each of {item.min_length} to {item.max_length} characters"
    if isinstance(kind, inspect.DictType):
        return "a table of texts in quotes"
    assert isinstance(kind, inspect.IntType | inspect.FloatType)
    whole = "a whole number" if isinstance(kind, inspect.IntType) else "a number"
    return f"{whole}, {f'above {kind.gt:g} and up to' if kind.gt is not None else f'{kind.ge:g} to'} {kind.le:g}"


# -- the example ------------------------------------------------------------------------------------------------------


def example() -> str:
    """Return a TOML file with every key: its meaning, its range, its default."""
    lines = [
        "# The configuration of a Submilli gateway: every key with its default. Keep only the keys you change.",
        f"# Pass this file with --config or in {CONFIG_VARIABLE}. Relative paths begin at the folder of this file.",
        "#",
        "# Secrets are not allowed in this file. They come from the environment, or from files:",
        *(f"#   {line[2:]}" for line in environment_example().splitlines() if line.startswith("# ")),
    ]
    for name, kind in {**_SECTIONS, **_agent_tables("default")}.items():
        lines += ["", f"# {_first_line(kind)}", f"[{name}]"]
        lines += _example_keys(kind)
        for field in _fields(kind):  # tables with names of the user's choice
            if isinstance(field.type, inspect.DictType) and isinstance(field.type.value_type, inspect.StructType):
                of_one = field.type.value_type.cls
                lines += _example_of_one(f"{name}.{field.name}.NAME", of_one)
        if kind is Hooks:
            lines += _example_of_one("tools.NAME", Tool)
            lines += _example_of_one("[events]", EventHook)
        if kind is Agent:
            lines += _example_of_one(f"[{name}.mcp]", Mcp)
    lines += _example_of_one('prices."MODEL"', Price)
    lines += [line.replace("[routes]", "[[routes]]") for line in _example_of_one("routes", Route)]
    return "\n".join(lines) + "\n"


def _example_of_one(name: str, kind: type[msgspec.Struct]) -> list[str]:
    """Return the lines of a table that is there only under a name of the user's choice, commented out."""
    keys = [line if line.startswith("#") else f"#{line}" for line in _example_keys(kind)]
    return ["", f"# {_first_line(kind)}", f"#[{name}]", *keys]


def environment_example() -> str:
    """Return an environment file with every variable the gateway reads, commented out."""
    meanings = {field.name: _meaning(field) for field in _fields(Secrets) if field.name in ENVIRONMENT}
    lines = []
    for field, variable in ENVIRONMENT.items():
        lines += [f"# {variable}: {meanings[field]}", f"#{variable}="]
    for field, variable in variables_of("name").items():
        lines += [f"# {variable}: {ENVIRONMENT[field]} of the account in [twilio.accounts.NAME].", f"#{variable}="]
    lines += [f"# {FOLDERS[0]}: A folder with a file for each secret, named like its variable. A reload reads it again."]
    lines += [f"#{FOLDERS[0]}=", f"# {CONFIG_VARIABLE}: The TOML file, unless --config is given.", f"#{CONFIG_VARIABLE}="]
    return "\n".join(lines) + "\n"


def _example_keys(kind: type[msgspec.Struct]) -> list[str]:
    """Return the lines of a table's own keys."""
    return [line for field in _fields(kind) if isinstance(field.type, inspect.Metadata) for line in _example_key(field)]


def _example_key(field: inspect.Field) -> Iterator[str]:
    limits = "" if isinstance(_bare(field.type), inspect.StrType | inspect.BoolType) else f" {_capital(_expected(field.type))}."
    yield f"# {_meaning(field)}{limits}"
    default = field.default if field.default is not msgspec.NODEFAULT else {}  # a dictionary has a factory
    yield f"{field.encode_name} = {json.dumps(default, ensure_ascii=False)}"


def _bare(kind: inspect.Type) -> inspect.Type:
    return kind.type if isinstance(kind, inspect.Metadata) else kind


def _meaning(field: inspect.Field) -> str:
    assert isinstance(field.type, inspect.Metadata)
    return str((field.type.extra_json_schema or {})["description"])


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _first_line(kind: type[msgspec.Struct]) -> str:
    return (kind.__doc__ or "").partition("\n")[0]
