"""The configuration object: every key with its default, range and meaning.

The keys are in a TOML file (`--config`, or SUBMILLI_CONFIG), the secrets in the environment or in files. `config example` and
`config check` are derived from these fields.

load        reads, checks and prints a configuration
credentials secrets from files
rules       checks that involve several keys
tool_rules  the same for tools
route_rules the same for routes
outbound_rules the same for outbound calls
route_times the grammar of a route's weekdays and hours
hook_url    the grammar of a user's endpoints
json_schema the schema of a tool's arguments
store_url   the grammar of store.url
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Final, Literal, NamedTuple
from urllib.parse import quote

import msgspec
from msgspec import Meta

#: Equal to the version in pyproject.toml.
VERSION: Final = "0.1.0"

#: Fragment of a webhook's URL: Twilio repeats a request that fails in any way, twice within its 15 s, instead of ending the call.
#: It neither sends nor signs the fragment. Without one it repeats a failed connect only. Source: Twilio, "Webhook connection
#: overrides".
REPEATED: Final = "#rc=2&rp=all"
#: Paths of requests that must reach the machine that has the call.
MACHINE_PATHS: Final = frozenset({"/media", "/twilio/action", "/twilio/whisper"})

#: The tools that every agent may have.
BUILT_IN_TOOLS: Final = ("hang_up", "transfer", "send_digits", "collect_digits")
#: Bound on the MCP servers of an agent.
MAX_MCP: Final = 8
#: Bound on a tool's result: it is escaped and sent in one slice of the hub, 0.7 ms at worst.
MAX_RESULT_BYTES: Final = 65_536
#: Bound on the tools of an agent. Source: OpenAI API, "Function calling": at most 128 functions.
MAX_TOOLS: Final = 128

#: At most a day, longer than any wait here should be.
_Seconds = Annotated[float, Meta(gt=0.0, le=86400.0)]


def _doc(text: str, **limits: Any) -> Meta:
    """Return the meaning and the limits of a key."""
    return Meta(description=text, **limits)


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of the TOML file. Unknown keys are errors."""


class Server(_Section, frozen=True):
    """The public server: Twilio's webhooks and media sockets."""

    listen: Annotated[str, _doc("Address for Twilio's requests. Without Twilio credentials: loopback only.")] = "127.0.0.1:8080"
    public_url: Annotated[
        str, _doc("The URL configured at Twilio; signatures are checked against it. Empty: derived from listen.")
    ] = ""
    machine: Annotated[
        str,
        _doc(
            "This machine's name, if several share public_url. Paths that must lead back here end in it.",
            pattern=r"^[A-Za-z0-9_-]{0,32}$",
        ),
    ] = ""
    proxies: Annotated[
        str,
        _doc(
            'Balancers, without the limit on connections of one address: "10.0.0.0/24, 2001:db8::/64". Loopback has none either.'
        ),
    ] = ""
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=1024)] | Literal["auto"],
        _doc('Media processes. "auto": one per core; with three or more cores, one core is left free.'),
    ] = 1
    pin: Annotated[bool, _doc('With workers = "auto": bind each worker to its own core.')] = True
    max_calls_per_worker: Annotated[
        int, _doc("Calls per worker, about the capacity of a core. Further calls: see [overflow].", ge=1, le=100_000)
    ] = 225
    on_lost: Annotated[
        Literal["resume", "goodbye"],
        _doc("For callers whose stream or worker broke. resume: continue on another stream. goodbye: say the goodbye."),
    ] = "resume"
    stop_timeout_s: Annotated[float, _doc("Bound on live calls after a stop.", ge=0.0, le=86400.0)] = 30.0
    reload_timeout_s: Annotated[float, _doc("Bound on live calls of replaced workers after a reload.", ge=0.0, le=86400.0)] = (
        3600.0
    )

    @property
    def public_base(self) -> str:
        """`public_url` without a trailing slash; if empty, the URL of `listen`."""
        return (self.public_url or f"http://{self.listen}").rstrip("/")

    @property
    def proxy_networks(self) -> tuple[str, ...]:
        """The networks in `proxies`."""
        return tuple(network.strip() for network in self.proxies.split(",") if network.strip())

    @property
    def way_back(self) -> str:
        """The suffix of paths that lead back to this machine: `/` and its name, or empty."""
        return f"/{self.machine}" if self.machine else ""

    def base_path(self, path: str) -> str:
        """Return a path without the machine's name at its end, this machine's or another's."""
        base, _, name = path.rpartition("/")
        return base if self.machine and base in MACHINE_PATHS and name else path


class Overflow(_Section, frozen=True):
    """The answer to callers while the machine is full, late or drained."""

    answer: Annotated[
        Literal["say", "queue", "dial"],
        _doc("say: the text, then hang up. queue: the text, then a Twilio queue. dial: another number."),
    ] = "say"
    text: Annotated[str, _doc("The text spoken to the caller. May be empty with queue.")] = (
        "All our lines are busy. Please call again in a few minutes."
    )
    queue: Annotated[str, _doc("With queue: its name.")] = ""
    dial: Annotated[str, _doc("With dial: a number in E.164, or sip:user@host.")] = ""


class Ops(_Section, frozen=True):
    """For operators: metrics, health, admin commands, logs."""

    listen: Annotated[str, _doc("Address of /metrics, /healthz and /readyz.")] = "127.0.0.1:9464"
    admin_socket: Annotated[
        str, _doc("The Unix socket for commands. Beside admin.sock, admin-ro.sock takes those that only read.", min_length=1)
    ] = "var/admin.sock"
    admin_group: Annotated[str, _doc("Members of this group may send all commands. Empty: the gateway's user and root.")] = ""
    read_group: Annotated[
        str, _doc("Members of this group may send commands that only read. They see numbers and transcripts. Empty: as above.")
    ] = ""
    var_dir: Annotated[
        str,
        _doc("Folder of the gateway's id, the spool, the bus socket and the metric pages. Keep it over restarts.", min_length=1),
    ] = "var"
    log_level: Annotated[Literal["debug", "info", "warning", "error"], _doc("The lowest level that is logged.")] = "info"
    log_numbers: Annotated[bool, _doc("Log whole telephone numbers. false: +15551234567 is logged as +1555***4567.")] = False
    hold_monitor: Annotated[
        Literal["duty", "always"],
        _doc("Measure what holds a worker's hub. duty: 10 % of the time. always: with CPU times, at a cost in CPU."),
    ] = "duty"


class Subaccount(_Section, frozen=True):
    """A further Twilio account. Its token is in the environment: TWILIO_AUTH_TOKEN_NAME, for this NAME in capitals."""

    account_sid: Annotated[str, _doc("AC and 32 hex digits. Webhooks, recordings and calls of this account use its token.")] = ""


class Twilio(_Section, frozen=True):
    """The Twilio account of the calls. TWILIO_AUTH_TOKEN is in the environment."""

    account_sid: Annotated[str, _doc("AC and 32 hex digits. Empty: no credentials, loopback only, no signatures.")] = ""
    api_base: Annotated[str, _doc("The URL of Twilio's REST API.")] = "https://api.twilio.com"
    timeout_s: Annotated[_Seconds, _doc("Bound on one REST request, for connect and read each.")] = 10.0
    accounts: dict[str, Subaccount] = {}


class Media(_Section, frozen=True):
    """Audio, timeouts and limits of a call."""

    lead_ms: Annotated[int, _doc("Audio sent ahead of time, which Twilio buffers.", ge=0, le=500)] = 100
    start_timeout_s: Annotated[_Seconds, _doc("Bound from the websocket upgrade to Twilio's start message.")] = 5.0
    ai_connect_s: Annotated[
        _Seconds, _doc("Bound from the start to the AI's confirmation. The caller's audio is kept meanwhile.")
    ] = 5.0
    ai_answer_s: Annotated[_Seconds, _doc("Bound from a request for a response to its first audio.")] = 15.0
    ai_stall_s: Annotated[
        _Seconds, _doc("Time of a stalled response, blocked audio or unanswered ping after which an AI leg is lost.")
    ] = 5.0
    ai_reconnect_s: Annotated[
        float, _doc("Time for reconnecting a lost AI leg, before the agent's fallback. 0: do not reconnect.", ge=0.0, le=600.0)
    ] = 8.0
    holding_sound: Annotated[bool, _doc("Play two soft notes to the caller at intervals while an answer is awaited.")] = True
    hold_after_s: Annotated[float, _doc("Silence of an awaited answer before the holding sound.", ge=0.3, le=5.0)] = 0.9
    phone_silence_s: Annotated[_Seconds, _doc("A call without a message from Twilio for this time ends.")] = 10.0
    idle_limit_s: Annotated[
        _Seconds, _doc("A call without speech for this time ends. The agent's idle prompts do not extend it.")
    ] = 120.0
    max_call_s: Annotated[_Seconds, _doc("The longest call.")] = 3600.0
    goodbye_s: Annotated[_Seconds, _doc("Bound on the AI's hang-up, beyond the remaining audio of its goodbye.")] = 10.0
    playout_s: Annotated[_Seconds, _doc("Bound on buffered AI audio per call. Twilio buffers ten minutes itself.")] = 600.0


class Consent(_Section, frozen=True):
    """A notice that the call is recorded. `file`: a WAV file, whose path the loader makes absolute; `text`: its words."""

    file: str = ""
    text: str = ""  # without a file, Twilio speaks it

    @property
    def is_set(self) -> bool:
        """True with a notice."""
        return bool(self.file or self.text)


class Recording(_Section, frozen=True):
    """Call recordings, made by Twilio and started once per call by the gateway."""

    enabled: Annotated[bool, _doc("Record calls.")] = True
    consent: Annotated[
        str | Consent, _doc("A notice that the caller hears before the recording: words, or a table (OPERATION.md).")
    ] = ""
    channels: Annotated[Literal["mono", "dual"], _doc("dual: a channel each for caller and agent. mono: one channel.")] = "dual"
    pool_size: Annotated[int, _doc("Greenlets per worker that send starts to the control process.", ge=1, le=10_000)] = 32
    retry_s: Annotated[_Seconds, _doc("Time for retrying a start while Twilio fails. The next reconcile pass continues.")] = 30.0
    fetch_dir: Annotated[
        str,
        _doc("Folder for a file of every finished recording, downloaded from Twilio. Empty: none. Several machines share one."),
    ] = ""
    keep_days: Annotated[
        int, _doc("Recordings older than this are deleted at Twilio, after the download. 0: Twilio keeps them.", ge=0, le=36_500)
    ] = 0

    @property
    def notice(self) -> Consent:
        """The notice; a plain text is its words."""
        return self.consent if isinstance(self.consent, Consent) else Consent(text=self.consent)


class Store(_Section, frozen=True):
    """The database of calls. SUBMILLI_DB_PASSWORD is in the environment."""

    url: Annotated[str, _doc("sqlite:///path, or mysql+pymysql://user@host/database, without a password.")] = (
        "sqlite:///var/submilli.db"
    )
    connect_timeout_s: Annotated[_Seconds, _doc("Bound on connecting to the database.")] = 5.0
    statement_timeout_s: Annotated[_Seconds, _doc("Bound on one statement.")] = 10.0
    keep_days: Annotated[
        int, _doc("Calls that ended longer ago are removed, with their turns and events. 0: all are kept.", ge=0, le=36_500)
    ] = 90


class Hooks(_Section, frozen=True):
    """Requests to your own HTTPS endpoints. SUBMILLI_HOOK_SECRET, which signs them, is in the environment."""

    allow_networks: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=50)], ...],
        _doc('Private networks that may be called, such as "10.0.3.0/24".', max_length=100),
    ] = ()


class Say(_Section, frozen=True):
    """A filler that the agent says."""

    say: Annotated[str, Meta(min_length=1, max_length=300)]


class Tool(_Section, frozen=True):
    """A tool of yours: an HTTPS endpoint that agents may call. NAME is the tool's name for the AI."""

    description: Annotated[str, _doc("The tool's purpose, for the AI.", max_length=1024)] = ""
    url: Annotated[str, _doc("The https:// URL that answers the tool's calls.", max_length=2000)] = ""
    parameters: Annotated[
        str, _doc("JSON Schema of the arguments, an object. Calls with other arguments are not sent.", max_length=32_768)
    ] = '{"type":"object","properties":{}}'
    timeout_s: Annotated[float, _doc("Bound on one call, with its second attempt.", ge=0.5, le=60.0)] = 8.0
    mode: Annotated[
        Literal["wait", "background"],
        _doc("wait: the agent answers with the result. background: it answers without the result, and again with it."),
    ] = "wait"
    filler_after_s: Annotated[float, _doc("Silence of a call under way before the filler.", ge=0.1, le=60.0)] = 1.2
    filler: Annotated[
        Literal["sound", "none"] | Say,
        _doc("sound: the holding sound. none: silence. { say = ... }: the agent says this in its own words."),
    ] = "sound"
    idempotent: Annotated[
        bool, _doc("A repetition with the same Idempotency-Key has no second effect: a failed request is sent once more.")
    ] = False
    on_interrupt: Annotated[
        Literal["keep", "cancel"], _doc("If the caller speaks during a call. keep: it continues. cancel: its result is dropped.")
    ] = "keep"
    max_result_bytes: Annotated[int, _doc("The longest result.", ge=1, le=MAX_RESULT_BYTES)] = 16_384


class EventHook(_Section, frozen=True):
    """An endpoint of yours that receives events of calls, signed, in sequence, at least once."""

    url: Annotated[str, _doc("The https:// URL that receives the events.", max_length=2000)] = ""
    types: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=50)], ...],
        _doc(
            "Types of events: call.started, call.ended, tool.called, transfer.ended, recording.completed, dial.ended.",
            max_length=20,
        ),
    ] = ("call.started", "call.ended")
    transcript: Annotated[
        Literal["none", "at_end", "live"],
        _doc("at_end: call.ended has the turns. live: each turn is also an event, transcript.turn."),
    ] = "at_end"
    give_up_h: Annotated[
        int, _doc("An event not delivered for this long is kept for a week and not tried again.", ge=1, le=168)
    ] = 24


class Turns(_Section, frozen=True):
    """Turn-taking: detection of the caller's speech, interruptions, silence."""

    detection: Annotated[
        Literal["server_vad", "semantic_vad"],
        _doc("The AI's turn detection. server_vad: by silence. semantic_vad: by the caller's words."),
    ] = "server_vad"
    eagerness: Annotated[
        Literal["low", "medium", "high", "auto"], _doc("With semantic_vad: how soon the agent answers after a pause.")
    ] = "auto"
    threshold: Annotated[float, _doc("With server_vad: loudness that counts as speech. Higher: less noise.", ge=0.0, le=1.0)] = (
        0.5
    )
    padding_ms: Annotated[int, _doc("With server_vad: audio kept from before the detected speech.", ge=0, le=5000)] = 300
    silence_ms: Annotated[int, _doc("With server_vad: the caller's pause that ends a turn.", ge=100, le=10_000)] = 500
    noise_reduction: Annotated[
        Literal["none", "near_field", "far_field"],
        _doc("The AI's noise reduction. near_field: handsets and headsets. far_field: loudspeakers."),
    ] = "none"
    interruptions: Annotated[
        Literal["model", "gateway", "none"],
        _doc("model: speech interrupts the agent. gateway: noise and backchannels do not. none: nothing does."),
    ] = "model"
    min_speech_ms: Annotated[int, _doc("With gateway: speech of this length interrupts the agent.", ge=50, le=10_000)] = 400
    backchannels: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=40)], ...],
        _doc("With gateway: words that do not interrupt the agent.", max_length=100),
    ] = ("mhm", "mm-hmm", "uh-huh", "okay", "ok", "yeah", "yes", "yep", "right", "sure", "hm", "hmm", "ja", "genau")
    resume_after_s: Annotated[
        float, _doc("With gateway: longest pause of the agent before an interruption is decided.", ge=0.1, le=30.0)
    ] = 2.0
    protect_greeting_ms: Annotated[
        int, _doc("Time from the first audio in which speech does not interrupt the greeting.", ge=0, le=60_000)
    ] = 0
    idle_prompt_s: Annotated[
        float, _doc("Silence of both sides before the agent asks whether the caller is there. 0: never.", ge=0.0, le=3600.0)
    ] = 15.0
    idle_prompts: Annotated[int, _doc("Such questions in a row, before the agent closes the call. 0: none.", ge=0, le=10)] = 2
    warn_before_end_s: Annotated[
        float, _doc("The agent is warned this long before media.max_call_s. 0: never.", ge=0.0, le=3600.0)
    ] = 60.0


class Keys(_Section, frozen=True):
    """The keys of the caller's telephone."""

    mode: Annotated[
        Literal["each", "collect"],
        _doc('each: every key is a separate turn. collect: keys until "#", max_digits or a pause of 3 s are one turn.'),
    ] = "collect"
    max_digits: Annotated[int, _doc("With collect: number of keys that end the turn.", ge=1, le=64)] = 20


class Greeting(_Section, frozen=True):
    """First words of an agent: one of `prompt`, `say` and `file`; empty, it waits for the caller."""

    prompt: str = ""  # instructions for the first response
    say: str = ""  # words for it
    file: str = ""  # a WAV file; the loader makes the path absolute
    text: str = ""  # the words in the file, for the AI and the transcript


class Transfer(_Section, frozen=True):
    """Parties to whom the agent may transfer a caller, by its tool `transfer`."""

    targets: Annotated[
        dict[str, str],
        _doc("Names for the AI, and the number in E.164 or sip:user@host of each. The AI never sees the numbers."),
    ] = {}
    ring_s: Annotated[int, _doc("Longest ringing. Then the caller is back with the agent.", ge=1, le=120)] = 25
    whisper: Annotated[
        bool, _doc("The callee hears the agent's summary first, and accepts with the key 1. false: connected as it answers.")
    ] = True
    accept: Annotated[str, _doc("With whisper: the text after the summary.", min_length=1, max_length=300)] = (
        "Press 1 to take the call."
    )


class Mcp(_Section, frozen=True):
    """A remote MCP server with tools for the agent. The AI's provider calls it, not the gateway."""

    server_label: Annotated[str, _doc("The server's name, for the AI.")] = ""
    server_url: Annotated[str, _doc("The server's https:// URL, reachable for the provider.", max_length=2000)] = ""
    authorization_env: Annotated[
        str, _doc("The environment variable with the token that the provider sends to the server. Empty: none.")
    ] = ""
    allowed_tools: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...],
        _doc("The server's tools that the agent may use. Empty: all.", max_length=MAX_TOOLS),
    ] = ()
    approve: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=128)], ...],
        _doc("The server's tools whose calls are approved. Calls of others are refused.", max_length=MAX_TOOLS),
    ] = ()


class Agent(_Section, frozen=True):
    """An AI agent. The agent named `default` answers unless another is requested."""

    provider: Annotated[
        Literal["parrot", "openai"], _doc("parrot: embedded, repeats the caller. openai: Realtime API, needs OPENAI_API_KEY.")
    ] = "parrot"
    model: Annotated[str, _doc("The model, by the provider's name.", min_length=1)] = "gpt-realtime-2.1"
    base_url: Annotated[str, _doc("The provider's websocket URL: wss://, or ws:// on loopback.")] = (
        "wss://api.openai.com/v1/realtime"
    )
    voice: Annotated[str, _doc("The voice, by the provider's name.", min_length=1)] = "marin"
    instructions: Annotated[str, _doc("The agent's role and manner of speaking.")] = (
        "You are on the telephone. Be brief, warm and clear."
    )
    greeting: Annotated[
        str | Greeting,
        _doc("First words: instructions, or a table (OPERATION.md). Empty: none."),
    ] = "Greet the caller."
    warm: Annotated[bool, _doc("Open the AI leg at the voice webhook, before the stream comes. For a tenth of the slots.")] = (
        False
    )
    transcription_model: Annotated[str, _doc("The model that transcribes the caller. Empty: no transcript of the caller.")] = (
        "gpt-transcribe"
    )
    fallback: Annotated[
        Literal["goodbye", "transfer"],
        _doc("Action when the AI stays unreachable. goodbye: the text, then hang up. transfer: another number."),
    ] = "goodbye"
    goodbye: Annotated[str, _doc("With goodbye: the text spoken to the caller. May be empty.", max_length=1000)] = (
        "We are sorry, something went wrong on our side. Please call again in a few minutes."
    )
    closing: Annotated[
        str, _doc("Spoken by Twilio at a call's normal end whose goodbye the caller did not hear. May be empty.", max_length=1000)
    ] = "Thank you for calling. Goodbye."
    transfer_to: Annotated[str, _doc("With transfer: a number in E.164, or sip:user@host.")] = ""
    tools: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=64)], ...],
        _doc("The agent's tools: built-in ones, and names of [tools.NAME].", max_length=MAX_TOOLS),
    ] = ("hang_up",)
    recording: Annotated[bool, _doc("Record the agent's calls, where [recording] does.")] = True
    transfer: Transfer = Transfer()
    mcp: tuple[Mcp, ...] = ()
    turns: Turns = Turns()
    keys: Keys = Keys()

    @property
    def first_words(self) -> Greeting:
        """The greeting; a plain text is a prompt."""
        return self.greeting if isinstance(self.greeting, Greeting) else Greeting(prompt=self.greeting)


#: More than any price or budget; in whole figures, for the messages.
_Usd = Annotated[float, Meta(ge=0.0, le=100_000.0)]


class Price(_Section, frozen=True):
    """Prices of a model, in USD per million tokens. Cached tokens are not part of *_in. Without prices a call has no cost."""

    text_in: Annotated[_Usd, _doc("Text to the model that was not cached.")] = 0.0
    text_cached: Annotated[_Usd, _doc("Cached text to the model.")] = 0.0
    text_out: Annotated[_Usd, _doc("Text from the model.")] = 0.0
    audio_in: Annotated[_Usd, _doc("Audio to the model that was not cached.")] = 0.0
    audio_cached: Annotated[_Usd, _doc("Cached audio to the model.")] = 0.0
    audio_out: Annotated[_Usd, _doc("Audio from the model.")] = 0.0


class Budget(_Section, frozen=True):
    """Limits on the cost of the AI, by [prices]. At 100 % a call ends with words, or callers hear [overflow] for the day."""

    call_usd: Annotated[_Usd, _doc("For one call. The agent is warned at 80 %. 0: no limit.")] = 0.0
    day_usd: Annotated[_Usd, _doc("For all calls of a day, in UTC, of all machines that share the store. 0: no limit.")] = 0.0
    caller_day_usd: Annotated[_Usd, _doc("For all calls of a day from one number. The agent is warned at 80 %. 0: no limit.")] = (
        0.0
    )

    @property
    def is_limited(self) -> bool:
        """True with any limit."""
        return bool(self.call_usd or self.day_usd or self.caller_day_usd)

    @property
    def has_days(self) -> bool:
        """True with a limit that control sums over calls."""
        return bool(self.day_usd or self.caller_day_usd)


#: A party that Twilio dials: a number in E.164, or a SIP address.
DIALLED: Final = re.compile(r"\+[1-9][0-9]{6,14}|sips?:[^\s@]+@[^\s@]+")
#: A variable of a route, as a pattern.
VARIABLE_NAME: Final = "[a-z_]{1,32}"
MAX_VARIABLES: Final = 32
#: Variables that every call has; no route sets them.
CALL_VARIABLES: Final = ("caller", "called", "now", "direction")
MAX_VARIABLE_CHARS: Final = 500
#: Control characters, line breaks among them: no variable has one.
CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
#: Longest words of a route to a caller whom no agent answers.
MAX_REFUSE_CHARS: Final = 1000
#: `on_failure` of a lookup whose caller is refused.
REFUSE: Final = "refuse"


class Route(_Section, frozen=True):
    """A rule for calls: the first [[routes]] that a call meets decides. Not for calls whose webhook's URL names an agent."""

    called: Annotated[str, _doc("The number that was called, as Twilio writes it. Empty: every number.")] = ""
    weekdays: Annotated[str, _doc('Days, for example "mon-fri" or "sat, sun". Empty: every day.')] = ""
    hours: Annotated[str, _doc('Time of day, the end exclusive: "09:00-17:00", "22:00-06:00" or a list. Empty: always.')] = ""
    zone: Annotated[str, _doc('Time zone of weekdays, hours and {{now}}, for example "Europe/Berlin".', min_length=1)] = "UTC"
    agent: Annotated[str, _doc("The agent that answers. Empty: default.")] = ""
    variables: Annotated[dict[str, str], _doc("Values of {{name}} in the agent's instructions and greeting.")] = {}
    record: Annotated[bool, _doc("Record the call, where [recording] does.")] = True
    refuse: Annotated[
        str, _doc('Instead of an agent. "busy": the busy tone. Another text: spoken.', max_length=MAX_REFUSE_CHARS)
    ] = ""
    dial: Annotated[str, _doc("Instead of an agent: a number in E.164, or sip:user@host.")] = ""


class RouteLookup(_Section, frozen=True):
    """An endpoint of yours that decides who answers a call that no [[routes]] fits."""

    url: Annotated[str, _doc("The https:// URL that answers. Empty: none is asked.", max_length=2000)] = ""
    timeout_s: Annotated[float, _doc("Bound on the answer, while the caller hears ringing.", ge=0.1, le=10.0)] = 2.0
    on_failure: Annotated[
        str, _doc('Without a valid answer: an agent\'s name, or "refuse" for overflow.text.', min_length=1, max_length=64)
    ] = "default"


#: Outcomes of a dial after which a list may dial the number again.
RETRIED: Final = ("busy", "no-answer", "failed", "machine")


class Outbound(_Section, frozen=True, rename={"from_": "from"}):
    """Calls that the gateway places: `calls dial` and `call`."""

    from_: Annotated[str, _doc("Caller ID: a number of your Twilio account. Empty: the command names one.")] = ""
    calls_per_s: Annotated[float, _doc("Dials of a list per second.", ge=0.01, le=100.0)] = 1.0
    concurrent: Annotated[int, _doc("Dials of lists under way at a time, ringing or in conversation.", ge=1, le=10_000)] = 10
    hours: Annotated[
        str, _doc('Time of day for the dials of a list, in the zone of the callee: "09:00-17:00", or a list. Empty: always.')
    ] = "09:00-20:00"
    zone: Annotated[str, _doc("Time zone of the callees for which a list has none.", min_length=1)] = "UTC"
    ring_s: Annotated[int, _doc("Time for the callee to answer.", ge=5, le=600)] = 30
    retries: Annotated[int, _doc("Further dials of a number that was not reached.", ge=0, le=10)] = 2
    retry_after_s: Annotated[float, _doc("Least time from the end of a dial to the next one.", ge=0.0, le=604_800.0)] = 900.0
    retry_on: Annotated[
        tuple[Annotated[str, Meta(min_length=1, max_length=20)], ...],
        _doc(f"Outcomes before a further dial: {', '.join(RETRIED)}.", max_length=len(RETRIED)),
    ] = ("busy", "no-answer")
    amd: Annotated[bool, _doc("Have Twilio detect answering machines and fax machines, at its price.")] = True
    voicemail: Annotated[
        str, _doc("A WAV file, played to an answering machine after its announcement. Empty: the call ends there.")
    ] = ""
    stop_at_failures: Annotated[
        int, _doc("A list stops after this many dials in a row that failed or that Twilio refused. 0: never.", ge=0, le=10_000)
    ] = 10


class AccountSecrets(msgspec.Struct, frozen=True, kw_only=True):
    """Secrets of one Twilio account. Never printed or logged."""

    twilio_auth_token: Annotated[str, _doc("The Twilio auth token, for signatures and the REST API.")] = ""
    twilio_auth_token_old: Annotated[
        str, _doc("A second auth token whose signatures are accepted, while the first one is being replaced.")
    ] = ""
    twilio_shared_key: Annotated[str, _doc("The secret of Twilio's SharedKey, if webhooks are signed with one.")] = ""

    def __repr__(self) -> str:
        return f"{type(self).__name__}(...)"


class Secrets(AccountSecrets, frozen=True, kw_only=True):
    """Secrets from the environment or files, under the names in `ENVIRONMENT`. Those of Twilio are the main account's."""

    openai_api_key: Annotated[str, _doc("The API key for agents of provider openai.")] = ""
    db_password: Annotated[str, _doc("The password for store.url.")] = ""
    ops_token: Annotated[str, _doc("The bearer token for /metrics. Needed if ops.listen is not a loopback address.")] = ""
    token_key: Annotated[str, _doc("The key that signs stream tokens. Empty: the auth token at the start, or a random key.")] = ""
    talk_key: Annotated[str, _doc("The key in the URL of the talk page. Empty: a random one for each start.")] = ""
    hook_secret: Annotated[str, _doc("The key that signs requests to your endpoints. Needed if there is one.")] = ""
    hook_secret_old: Annotated[
        str, _doc("The former key, which signs these requests too, while your endpoints still know it only.")
    ] = ""
    accounts: dict[str, AccountSecrets] = {}
    mcp: dict[str, str] = {}  # by the variables that `authorization_env` names


#: The environment variable of each field of `Secrets`.
ENVIRONMENT: Final = {
    "twilio_auth_token": "TWILIO_AUTH_TOKEN",
    "twilio_auth_token_old": "TWILIO_AUTH_TOKEN_OLD",
    "twilio_shared_key": "TWILIO_SHARED_KEY",
    "openai_api_key": "OPENAI_API_KEY",
    "db_password": "SUBMILLI_DB_PASSWORD",
    "ops_token": "SUBMILLI_OPS_TOKEN",
    "token_key": "SUBMILLI_TOKEN_KEY",
    "talk_key": "SUBMILLI_TALK_KEY",
    "hook_secret": "SUBMILLI_HOOK_SECRET",
    "hook_secret_old": "SUBMILLI_HOOK_SECRET_OLD",
}
#: The same for the secrets of a further account, with its name in capitals.
ACCOUNT_ENVIRONMENT: Final = {
    "twilio_auth_token": "TWILIO_AUTH_TOKEN_{}",
    "twilio_auth_token_old": "TWILIO_AUTH_TOKEN_{}_OLD",
    "twilio_shared_key": "TWILIO_SHARED_KEY_{}",
}
_OF_ANY_ACCOUNT: Final = {
    "twilio_auth_token_old": re.compile(r"TWILIO_AUTH_TOKEN_\w+_OLD"),
    "twilio_auth_token": re.compile(r"TWILIO_AUTH_TOKEN_\w+"),
    "twilio_shared_key": re.compile(r"TWILIO_SHARED_KEY_\w+"),
}
#: The secrets of each kind of process: the only ones that it gets from the supervisor, and reads.
SECRETS_OF: Final = {
    "control": frozenset({"twilio_auth_token", "db_password", "ops_token", "hook_secret", "hook_secret_old", "talk_key"}),
    "worker": frozenset(
        {"twilio_auth_token", "twilio_auth_token_old", "twilio_shared_key", "openai_api_key", "token_key", "talk_key"}
    ),
}


class Account(NamedTuple):
    """A Twilio account with its secrets. `name` is empty for the main one."""

    name: str
    sid: str
    secrets: AccountSecrets


#: Types of events that an endpoint may receive; `transcript.turn` by its own key. Source: the interface to the user's systems.
EVENT_TYPES: Final = ("call.started", "call.ended", "tool.called", "transfer.ended", "recording.completed", "dial.ended")


class Config(_Section, frozen=True):
    """The whole configuration, built once at start by `gw.config.load.load`."""

    server: Server = Server()
    overflow: Overflow = Overflow()
    ops: Ops = Ops()
    twilio: Twilio = Twilio()
    media: Media = Media()
    recording: Recording = Recording()
    store: Store = Store()
    hooks: Hooks = Hooks()
    tools: dict[str, Tool] = {}
    events: tuple[EventHook, ...] = ()
    route: RouteLookup = RouteLookup()
    budget: Budget = Budget()
    agents: dict[str, Agent] = msgspec.field(default_factory=lambda: {"default": Agent()})
    prices: dict[str, Price] = {}
    routes: tuple[Route, ...] = ()
    outbound: Outbound = Outbound()
    secrets: Secrets = Secrets()

    @property
    def signed(self) -> bool:
        """True with Twilio credentials: signatures are checked."""
        return bool(self.twilio.account_sid and self.secrets.twilio_auth_token)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All Twilio accounts, the main one first. None without credentials."""
        if not self.signed:
            return ()
        named = self.twilio.accounts.items()
        more = (Account(name, one.account_sid, self.secrets.accounts.get(name, AccountSecrets())) for name, one in named)
        return (Account("", self.twilio.account_sid, self.secrets), *more)


def field_of(variable: str) -> str | None:
    """Return the field of `AccountSecrets` or `Secrets` that an environment variable fills, for whatever account."""
    for field, name in ENVIRONMENT.items():
        if name == variable:
            return field
    return next((field for field, pattern in _OF_ANY_ACCOUNT.items() if pattern.fullmatch(variable)), None)


#: The reason why a gateway has no talk page.
NO_TALK: Final = (
    "the talk page is served without Twilio credentials only; run another gateway for it, with a configuration that lacks "
    "twilio.account_sid"
)


def talk_url(host: str, port: int, key: str) -> str:
    """Return the talk page's URL."""
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/talk?key={quote(key, safe='')}"


def host_and_port(listen: str) -> tuple[str, int]:
    """Parse an address: `127.0.0.1:8080`, `[::]:8080`, or `:8080` for every interface. Raises ValueError."""
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f'"{listen}" is not an address; expected HOST:PORT, for example 127.0.0.1:8080')
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f'"{listen}" is not an address; write an IPv6 host in brackets, for example [::1]:8080')
    return host, int(port)
