"""The one frozen object everything is configured by.

One TOML file (`--config`, or SUBMILLI_CONFIG) gives the keys, the environment gives the secrets. Every field has its default
here and nowhere else. `gw.config_load` reads it: this file only says what there is.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

#: The same as in pyproject.toml.
VERSION: Final = "0.1.0"


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file: unknown keys are errors."""


class Server(_Section, frozen=True):
    """The public side: Twilio's webhooks and media sockets."""

    listen: str = "127.0.0.1:8080"
    public_url: str = ""  # what Twilio was given; signatures are checked against it. Empty: derived from `listen`
    workers: int | Literal["auto"] = 1
    max_calls: int = 500  # per worker; more are answered with "busy" TwiML
    drain_s: float = 30.0  # at stop: how long live calls may go on

    @property
    def public_base(self) -> str:
        """`public_url`, or what stands for it where there is none: a URL that leads to `listen`."""
        return (self.public_url or f"http://{self.listen}").rstrip("/")


class Ops(_Section, frozen=True):
    """The operator's side: metrics, health, admin."""

    listen: str = "127.0.0.1:9464"
    admin_socket: str = "var/admin.sock"
    var_dir: str = "var"  # spool, bus socket, metric pages
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class Twilio(_Section, frozen=True):
    """The account the calls come from. TWILIO_AUTH_TOKEN in the environment."""

    account_sid: str = ""
    api_base: str = "https://api.twilio.com"
    timeout_s: float = 10.0  # one REST request, connect and read each


class Media(_Section, frozen=True):
    """The call path's numbers."""

    lead_ms: int = 100  # audio sent ahead, the cushion at Twilio; 0 to 500
    start_timeout_s: float = 5.0  # from the upgrade to Twilio's `start`
    ai_connect_s: float = 5.0  # from `start` to the AI's confirmation; caller audio is kept that long
    ai_stall_s: float = 15.0  # a response began and no event of it came
    phone_silence_s: float = 10.0  # no message from Twilio at all
    idle_limit_s: float = 120.0  # nobody speaks
    max_call_s: float = 3600.0
    goodbye_s: float = 10.0  # beyond what is still to be heard: the bound on an AI's hang-up
    playout_s: float = 600.0  # AI audio kept per call; Twilio itself keeps ten minutes


class Recording(_Section, frozen=True):
    """Twilio records; the gateway decides when, once."""

    enabled: bool = True
    channels: Literal["mono", "dual"] = "dual"
    pool_size: int = 32  # greenlets per worker that hand a start to the control process
    retry_s: float = 30.0  # how long a start is tried again when Twilio fails


class Store(_Section, frozen=True):
    """Where calls are kept. SUBMILLI_DB_PASSWORD in the environment."""

    url: str = "sqlite:///var/submilli.db"
    connect_timeout_s: float = 5.0
    statement_timeout_s: float = 10.0


class Agent(_Section, frozen=True):
    """Who answers. The agent named `default` answers where none is asked for."""

    provider: Literal["parrot", "openai"] = "parrot"
    model: str = "gpt-realtime-2.1"
    base_url: str = "wss://api.openai.com/v1/realtime"
    voice: str = "marin"
    instructions: str = "You are on the telephone. Be brief, warm and clear."
    greeting: str = "Greet the caller."  # instructions of the first response; empty: wait for the caller
    transcription_model: str = "gpt-transcribe"  # empty: the caller's words are not transcribed
    silence_ms: int = 500  # the caller's pause that ends a turn


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What comes from the environment. Never printed, never logged."""

    twilio_auth_token: str = ""  # TWILIO_AUTH_TOKEN
    openai_api_key: str = ""  # OPENAI_API_KEY
    db_password: str = ""  # SUBMILLI_DB_PASSWORD
    token_key: str = ""  # SUBMILLI_TOKEN_KEY; empty: the auth token, else made at start

    def __repr__(self) -> str:
        return "Secrets(...)"


class Config(_Section, frozen=True):
    """All of it. Built once at start, by `gw.config_load.load`."""

    server: Server = Server()
    ops: Ops = Ops()
    twilio: Twilio = Twilio()
    media: Media = Media()
    recording: Recording = Recording()
    store: Store = Store()
    agents: dict[str, Agent] = msgspec.field(default_factory=lambda: {"default": Agent()})
    secrets: Secrets = Secrets()

    @property
    def signed(self) -> bool:
        """Whether Twilio's signatures are checked: only with credentials."""
        return bool(self.twilio.account_sid and self.secrets.twilio_auth_token)


def host_and_port(listen: str) -> tuple[str, int]:
    """Take a `listen` value apart: `127.0.0.1:8080`, `[::]:8080`, `:8080` (every interface). Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{listen}" is no address: it should read like 127.0.0.1:8080')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{listen}" is no address: an IPv6 host stands in brackets, as in [::1]:8080')
    return host, int(port)
