"""The one frozen object everything is configured by.

One TOML file (`--config`, or SUBMILLI_CONFIG) gives the keys, the environment gives the secrets. Every field has its default, its
meaning and its range here and nowhere else: what `config example` prints and what `config check` wants is made of them.
`gw.config.load` reads the file: this module only says what there is.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

#: The same as in pyproject.toml.
VERSION: Final = "0.1.0"

#: A day: longer than anything here should wait for anything.
_Seconds = Annotated[float, Meta(gt=0.0, le=86400.0)]


#: The paths of a call that is one machine's already.
LEAD_BACK: Final = frozenset({"/media", "/twilio/action"})


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file: unknown keys are errors."""


class Server(_Section, frozen=True):
    """The public side: Twilio's webhooks and media sockets."""

    listen: Annotated[str, Meta(description="Where Twilio's requests arrive. Without Twilio credentials: loopback only.")] = (
        "127.0.0.1:8080"
    )
    public_url: Annotated[
        str,
        Meta(description="The URL Twilio was given; signatures are checked against it. Empty: derived from listen."),
    ] = ""
    machine: Annotated[
        str,
        Meta(
            pattern=r"^[A-Za-z0-9_-]{0,32}$",
            description="Where several machines share public_url: this one's name. Paths that lead back here end in it.",
        ),
    ] = ""
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"],
        Meta(description='Media processes. "auto": one per core, less one from three cores on.'),
    ] = 1
    pin: Annotated[bool, Meta(description='With workers = "auto": each worker runs on a core of its own.')] = True
    max_calls_per_worker: Annotated[
        int, Meta(ge=1, le=100_000, description="Calls a worker takes, about what a core holds; for more see [overflow].")
    ] = 225
    on_lost: Annotated[
        Literal["resume", "goodbye"],
        Meta(
            description="A caller whose worker died. resume: goes on with another worker. goodbye: is told the agent's goodbye."
        ),
    ] = "resume"
    stop_timeout_s: Annotated[float, Meta(ge=0.0, le=86400.0, description="At stop: how long live calls may go on.")] = 30.0
    reload_timeout_s: Annotated[
        float, Meta(ge=0.0, le=86400.0, description="At a reload: how long calls may go on with what was replaced.")
    ] = 3600.0

    @property
    def public_base(self) -> str:
        """`public_url`, or what stands for it where there is none: a URL that leads to `listen`."""
        return (self.public_url or f"http://{self.listen}").rstrip("/")

    @property
    def way_back(self) -> str:
        """What ends a path that leads back to this machine: `/` and its name, or nothing where it is alone."""
        return f"/{self.machine}" if self.machine else ""

    def base_path(self, path: str) -> str:
        """A path without the machine's name it ends in: ours, or another's that cannot be reached. Alone: as it is."""
        base, _, name = path.rpartition("/")
        return base if self.machine and base in LEAD_BACK and name else path


class Overflow(_Section, frozen=True):
    """What a caller gets when the machine is full, late or drained."""

    answer: Annotated[
        Literal["say", "queue", "dial"],
        Meta(description="say: the text, then hang up. queue: the text, then a queue of the account. dial: another number."),
    ] = "say"
    text: Annotated[str, Meta(description="What the caller is told. Empty, with queue: nothing.")] = (
        "All our lines are busy. Please call again in a few minutes."
    )
    queue: Annotated[str, Meta(description="With queue: the name of the queue.")] = ""
    dial: Annotated[str, Meta(description="With dial: a number in E.164, or sip:user@host.")] = ""


class Ops(_Section, frozen=True):
    """The operator's side: metrics, health, admin."""

    listen: Annotated[str, Meta(description="Where /metrics, /healthz and /readyz are served.")] = "127.0.0.1:9464"
    admin_socket: Annotated[str, Meta(min_length=1, description="The Unix socket the commands talk to; its mode is 0600.")] = (
        "var/admin.sock"
    )
    var_dir: Annotated[
        str, Meta(min_length=1, description="The directory of the spool, the bus's socket and the metric pages.")
    ] = "var"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="What is logged, and everything worse.")
    ] = "info"
    log_numbers: Annotated[
        bool, Meta(description="Whether telephone numbers stand in the log whole. false: +15551234567 is +1555***4567.")
    ] = False
    hold_monitor: Annotated[
        Literal["duty", "always"],
        Meta(description="Watch who holds a worker's hub: a tenth of the time, or always and with CPU times, which costs."),
    ] = "duty"


class Twilio(_Section, frozen=True):
    """The account the calls come from. TWILIO_AUTH_TOKEN in the environment."""

    account_sid: Annotated[
        str, Meta(description="AC and 32 hex digits. Empty: no credentials, loopback only, nothing is signed.")
    ] = ""
    api_base: Annotated[str, Meta(description="Twilio's REST API.")] = "https://api.twilio.com"
    timeout_s: Annotated[_Seconds, Meta(description="The bound on one REST request, connect and read each.")] = 10.0


class Media(_Section, frozen=True):
    """The call path's numbers."""

    lead_ms: Annotated[int, Meta(ge=0, le=500, description="Audio sent ahead: the cushion at Twilio.")] = 100
    start_timeout_s: Annotated[_Seconds, Meta(description="The wait for Twilio's start message, from the upgrade on.")] = 5.0
    ai_connect_s: Annotated[
        _Seconds, Meta(description="The wait for the AI's confirmation, from the start on; the caller's audio is kept meanwhile.")
    ] = 5.0
    ai_stall_s: Annotated[
        _Seconds,
        Meta(description="An AI leg that stops in a response, takes no audio or answers no ping for so long is lost."),
    ] = 5.0
    ai_reconnect_s: Annotated[
        float,
        Meta(ge=0.0, le=600.0, description="How long a lost AI leg is tried again before the agent's fallback. 0: not at all."),
    ] = 8.0
    holding_sound: Annotated[
        bool, Meta(description="Whether a caller hears two soft notes now and then while the AI is being reached again.")
    ] = True
    phone_silence_s: Annotated[_Seconds, Meta(description="Ends a call from which no message came for so long.")] = 10.0
    idle_limit_s: Annotated[_Seconds, Meta(description="Ends a call in which nobody spoke for so long.")] = 120.0
    max_call_s: Annotated[_Seconds, Meta(description="Ends a call that lasted so long.")] = 3600.0
    goodbye_s: Annotated[
        _Seconds, Meta(description="The bound on an AI's hang-up, beyond what is still to be heard of its goodbye.")
    ] = 10.0
    playout_s: Annotated[
        _Seconds, Meta(description="AI audio kept per call, in seconds of speech; Twilio itself keeps ten minutes.")
    ] = 600.0


class Recording(_Section, frozen=True):
    """Twilio records; the gateway decides when, once."""

    enabled: Annotated[bool, Meta(description="Whether calls are recorded.")] = True
    channels: Annotated[
        Literal["mono", "dual"], Meta(description="dual: caller and agent on a channel each; mono: both on one.")
    ] = "dual"
    pool_size: Annotated[
        int, Meta(ge=1, le=10_000, description="Greenlets per worker that hand a start to the control process.")
    ] = 32
    retry_s: Annotated[
        _Seconds, Meta(description="How long a start is tried in one go when Twilio fails; then the next pass goes on.")
    ] = 30.0


class Store(_Section, frozen=True):
    """Where calls are kept. SUBMILLI_DB_PASSWORD in the environment."""

    url: Annotated[
        str, Meta(description="sqlite:///path, or mysql+pymysql://user@host/database; never with a password in it.")
    ] = "sqlite:///var/submilli.db"
    connect_timeout_s: Annotated[_Seconds, Meta(description="The bound on a connect to the database.")] = 5.0
    statement_timeout_s: Annotated[_Seconds, Meta(description="The bound on one statement.")] = 10.0


class Agent(_Section, frozen=True):
    """Who answers. The agent named `default` answers where none is asked for."""

    provider: Annotated[
        Literal["parrot", "openai"],
        Meta(description="parrot: embedded, repeats the caller. openai: Realtime, needs OPENAI_API_KEY."),
    ] = "parrot"
    model: Annotated[str, Meta(min_length=1, description="The provider's name of the model.")] = "gpt-realtime-2.1"
    base_url: Annotated[str, Meta(description="The provider's websocket; wss, or ws on loopback.")] = (
        "wss://api.openai.com/v1/realtime"
    )
    voice: Annotated[str, Meta(min_length=1, description="The provider's name of the voice.")] = "marin"
    instructions: Annotated[str, Meta(description="Who the agent is and how it speaks.")] = (
        "You are on the telephone. Be brief, warm and clear."
    )
    greeting: Annotated[str, Meta(description="Instructions of the first response. Empty: wait for the caller.")] = (
        "Greet the caller."
    )
    transcription_model: Annotated[str, Meta(description="Writes down the caller's words. Empty: they are not transcribed.")] = (
        "gpt-transcribe"
    )
    fallback: Annotated[
        Literal["goodbye", "transfer"],
        Meta(description="When no AI can be reached. goodbye: the text, then hang up. transfer: another number."),
    ] = "goodbye"
    goodbye: Annotated[str, Meta(max_length=1000, description="With goodbye: what the caller is told. Empty: nothing.")] = (
        "We are sorry, something went wrong on our side. Please call again in a few minutes."
    )
    transfer_to: Annotated[str, Meta(description="With transfer: a number in E.164, or sip:user@host.")] = ""
    silence_ms: Annotated[int, Meta(ge=100, le=10_000, description="The caller's pause that ends a turn.")] = 500


class Secrets(msgspec.Struct, frozen=True, kw_only=True):
    """What comes from the environment, under the names in `ENVIRONMENT`. Never printed, never logged."""

    twilio_auth_token: Annotated[str, Meta(description="Signs Twilio's requests and ours.")] = ""
    openai_api_key: Annotated[str, Meta(description="For agents of provider openai.")] = ""
    db_password: Annotated[str, Meta(description="The password of store.url's user.")] = ""
    token_key: Annotated[str, Meta(description="Signs stream tokens. Empty: the auth token, else made at start.")] = ""

    def __repr__(self) -> str:
        return "Secrets(...)"


#: The environment variable of each field of `Secrets`.
ENVIRONMENT: Final = {
    "twilio_auth_token": "TWILIO_AUTH_TOKEN",
    "openai_api_key": "OPENAI_API_KEY",
    "db_password": "SUBMILLI_DB_PASSWORD",
    "token_key": "SUBMILLI_TOKEN_KEY",
}


class Config(_Section, frozen=True):
    """All of it. Built once at start, by `gw.config.load.load`."""

    server: Server = Server()
    overflow: Overflow = Overflow()
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
